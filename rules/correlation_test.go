package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
)

// base is a rule with a name, for a server's port.
func base(name string, port int) string {
	return fmt.Sprintf("title: Base %[1]s\nid: 00000000-0000-0000-0000-%012[2]d\nname: %[1]s\nlevel: low\nlogsource: {product: oddcert}\n"+
		"detection:\n  a: {server.port: %[2]d}\n  condition: a\n---\n", name, port)
}

// correlates is a correlation rule with a section, in one line.
func correlates(section string) string {
	return "title: Many\nid: 11111111-0000-0000-0000-000000000000\nlevel: medium\ncorrelation: {" + section + "}\n"
}

// at is a handshake of a client with a server at a time in seconds.
func at(seconds float64, client, server string, port uint16) *event.Handshake {
	return &event.Handshake{
		End: event.Moment{Time: int64(seconds * 1e9)},
		Flow: &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{
			{Addr: netip.MustParseAddr(client), Port: 50000}, {Addr: netip.MustParseAddr(server), Port: port},
		}},
		ClientHello: &event.ClientHello{ServerName: "www.example.net", Offer: &event.Offer{}},
	}
}

// through is what a set raises for handshakes, each of them with the times of the
// matches of correlations.
type through struct {
	m *Matcher
	c *Correlator
}

func (t through) see(h *event.Handshake) []Match { return t.c.See(h, nil, t.m.Match(h, nil, nil)) }

func newThrough(t testing.TB, text string) through {
	s := mustLoad(t, map[string]string{"r.yml": text})
	return through{s.NewMatcher(nil), s.NewCorrelator(nil, 1)}
}

// What is wrong with correlations and filters is told with its place.
func TestCorrelationProblems(t *testing.T) {
	one := base("one", 1)
	first := strings.Count(one, "\n") + 4 // the line of the section
	filter := func(section string) string {
		return one + "title: F\nlogsource: {product: oddcert}\nlevel: low\nfilter: {" + section + "}\n"
	}
	for text, want := range map[string]string{
		correlates("type: event_count, rules: one, timespan: 1h"):                                                              `:13:1: "correlation": the correlation has no condition`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: 3"):                                                `must be a map, such as gte: 10`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: x}"):                                         `"x": is not a whole number from 0 to 10000`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 10001}"):                                     `"10001": is not a whole number from 0 to 10000`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {neq: 1}"):                                         `"neq": is not a comparison`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gt: 5, lt: 6}"):                                   `no count satisfies the condition`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {lt: 1}"):                                          `no count satisfies the condition`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 1, field: server.ip}"):                       `"field": is of value_count only`,
		correlates("type: value_count, rules: one, timespan: 1h, condition: {gte: 1}"):                                         `value_count needs a field`,
		correlates("type: value_count, rules: one, timespan: 1h, condition: {gte: 1, field: server.pi}"):                       `"server.pi": is not a known field: did you mean server.ip?`,
		correlates("type: value_count, rules: one, timespan: 1h, condition: {gte: 1001, field: server.ip}"):                    `from 0 to 1000`,
		correlates("type: value_sum, rules: one, timespan: 1h, condition: {gte: 1}"):                                           `"value_sum": type must be one of event_count, value_count, temporal, temporal_ordered`,
		correlates("type: event_count, rules: ones, timespan: 1h, condition: {gte: 1}"):                                        `"ones": is neither the id nor the name of a rule: did you mean one?`,
		correlates("type: event_count, rules: [], timespan: 1h, condition: {gte: 1}"):                                          `the list is empty`,
		correlates("type: event_count, rules: one, timespan: 1, condition: {gte: 1}"):                                          `"1": is not a time: write a number and s, m, h, d, w or M`,
		correlates("type: event_count, rules: one, timespan: 0s, condition: {gte: 1}"):                                         `"0s": is not a time from 1s to 31d`,
		correlates("type: event_count, rules: one, timespan: 32d, condition: {gte: 1}"):                                        `"32d": is not a time from 1s to 31d`,
		correlates("type: event_count, rules: one, timespan: 1y, condition: {gte: 1}"):                                         `"1y": is not a time from 1s to 31d`,
		correlates("type: event_count, rules: one, timespan: 999999999w, condition: {gte: 1}"):                                 `is not a time from 1s to 31d`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 1}, group-by: server.name"):                  `"server.name": is not a known field`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 1}, group-by: [server.ip, server.ip]"):       `"server.ip": is here twice`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 1}, group_by: server.ip"):                    `"group_by": is not an attribute of correlation: did you mean group-by?`,
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 1}, generate: maybe"):                        `"maybe": generate must be one of true, false`,
		correlates("type: temporal, rules: [one, one], timespan: 1h"):                                                          `"one": is here twice`,
		correlates("type: temporal, rules: one, timespan: 1h, condition: {gte: 2}"):                                            `never holds, as there are 1 rules`,
		correlates("type: temporal, rules: one, timespan: 1h, condition: one and one"):                                         `the condition of a correlation must be a map`,
		correlates("type: temporal_ordered, rules: [one, one], timespan: 1h, condition: {gte: 1}"):                             `temporal_ordered needs all of its 2 rules`,
		correlates("type: temporal, rules: one, timespan: 1h, aliases: {x: {two: server.ip}}, group-by: x"):                    `"x": the alias has no field for the rule one`,
		correlates("type: temporal, rules: one, timespan: 1h, aliases: {x: {one: server.ip, two: server.ip}}, group-by: x"):    `"two": is not among the rules of the correlation`,
		correlates("type: temporal, rules: one, timespan: 1h, aliases: {server.ip: {one: client.ip}}, group-by: server.ip"):    `"server.ip": is the name of a field too`,
		correlates("type: temporal, rules: 11111111-0000-0000-0000-000000000000, timespan: 1h"):                                `the correlation refers to itself`,
		correlates("type: temporal, rules: one, timespan: 1h") + "oddcert: {reason: '{oddcert.correlation.sum}'}\n":            `"oddcert.correlation.sum": is not a known field`,
		correlates("type: temporal, rules: one, timespan: 1h") + "detection: {a: {server.port: 1}, condition: a}\n":            `"detection": is not an attribute of a correlation rule`,
		correlates("type: temporal, rules: one, timespan: 1h") + "oddcert: {suppress: {by: server.ip}}\n":                      `"suppress": suppress must be a map of by and for`,
		correlates("type: temporal, rules: one, timespan: 1h") + "oddcert: {suppress: {by: server.ip, for: 31d}}\n":            `"31d": is not a time from 1s to 30d`,
		correlates("type: temporal, rules: one, timespan: 1h") + "oddcert: {suppress: {by: [], for: 1d}}\n":                    `"by": the list is empty`,
		correlates("type: temporal, rules: one, timespan: 1h") + "oddcert: {suppress: {by: server, for: 1d}}\n":                `"server": is not a known field`,
		rule("a: {server.port: 1}\ncondition: a") + "oddcert: {reason: '{oddcert.correlation.count}'}\n":                       `"oddcert.correlation.count": is for correlation rules`,
		filter("rules: one, a: {server.port: 1}, condition: not a"):                                                            `"level": is not an attribute of a filter`,
		strings.Replace(filter("rules: two, a: {server.port: 1}, condition: not a"), "level: low\nfilter", "filter", 1):        `"two": is neither the id nor the name of a rule`,
		strings.Replace(filter("a: {server.port: 1}, condition: not a"), "level: low\nfilter", "filter", 1):                    `the filter has no rules`,
		strings.Replace(filter("rules: one, a: {server.port: 1}"), "level: low\nfilter", "filter", 1):                          `the filter has no condition`,
		strings.Replace(filter("rules: one, a: {server.port: 1}, condition: [not a]"), "level: low\nfilter", "filter", 1):      `the condition of a filter must be one text`,
		strings.Replace(filter("rules: [one, one], a: {server.port: 1}, condition: not a"), "level: low\nfilter", "filter", 1): `"one": is here twice`,
		correlates("type: temporal, rules: one, timespan: 1h, group-by: {a: b}"):                                               `group-by must be a text`,
		"title: F\nlogsource: {product: oddcert, category: tls}\nfilter: {rules: one, a: {server.port: 1}, condition: not a}":  `has another logsource than the filter`,
		base("one", 2) + correlates("type: temporal, rules: one, timespan: 1h"):                                                `"one": is the name of several rules: the first are at dir/r.yml:1 and dir/r.yml:10`,
	} {
		if !strings.HasPrefix(text, "title: Base") || strings.HasPrefix(text, base("one", 2)) {
			text = one + text
		}
		_, err := loadText(map[string]string{"r.yml": text})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s\ngot %v of\n%s", want, err, text)
			continue
		}
		if line := fmt.Sprintf("dir/r.yml:%d:", first); strings.Contains(text, "correlation: {") && !strings.Contains(err.Error(), line) && !strings.Contains(text, "oddcert: {") && !strings.Contains(text, "\ndetection: {a: {server.port: 1}, condition: a}\n") && !strings.Contains(text, "Base one\nid: 00000000-0000-0000-0000-000000000002") {
			t.Errorf("not at %s but %v", line, err)
		}
	}
}

// A circle of correlations is an error, and so is a chain that is too long.
func TestCorrelationChains(t *testing.T) {
	chain := func(n int, last string) string {
		var b strings.Builder
		b.WriteString(base("c0", 443))
		for i := 1; i <= n; i++ {
			of := fmt.Sprintf("c%d", i-1)
			if i == 1 && last != "" {
				of = last
			}
			fmt.Fprintf(&b, "title: C\nid: 22222222-0000-0000-0000-%012d\nname: c%d\nlevel: low\ncorrelation: {type: event_count, rules: %s, timespan: 1h, condition: {gte: 2}}\n---\n", i, i, of)
		}
		return b.String()
	}
	if _, err := loadText(map[string]string{"r.yml": chain(3, "c3")}); err == nil || !strings.Contains(err.Error(), "refers to itself, perhaps by way of others") {
		t.Errorf("a circle: %v", err)
	}
	if _, err := loadText(map[string]string{"r.yml": chain(maxCorrelationDepth+1, "")}); err == nil || !strings.Contains(err.Error(), "more than 7 deep") {
		t.Errorf("a long chain: %v", err)
	}
	// Each link wants two matches of the one before it, in an hour: the second link
	// never holds, as the first raises one an hour at most.
	s := newThrough(t, strings.Replace(chain(2, ""), "condition: {gte: 2}}\n---\ntitle: C\nid: 22222222-0000-0000-0000-000000000002", "condition: {gte: 2}}\n---\ntitle: C\nid: 22222222-0000-0000-0000-000000000002", 1))
	for i := range 10 {
		if got := s.see(at(float64(i), "192.0.2.1", "198.51.100.1", 443)); len(got) != 0 {
			t.Errorf("%d: %+v", i, got)
		}
	}
	s = newThrough(t, strings.ReplaceAll(strings.ReplaceAll(chain(2, ""), "timespan: 1h", "timespan: 10s"), "name: c2\nlevel: low\ncorrelation: {type: event_count, rules: c1, timespan: 10s", "name: c2\nlevel: low\ncorrelation: {type: event_count, rules: c1, timespan: 1m"))
	var times []int
	for i := range 40 {
		for _, m := range s.see(at(float64(i), "192.0.2.1", "198.51.100.1", 443)) {
			if m.Rule.name != "c2" {
				t.Errorf("a match of %s", m.Rule.name)
			}
			times = append(times, i)
		}
	}
	// c1 holds at 1, and more than 10 s later each: 12, 23, 34. The second makes c2 hold.
	if !slices.Equal(times, []int{12}) {
		t.Errorf("the second link holds at %v", times)
	}
}

// A window has both its ends: matches exactly a timespan apart are in it.
func TestCorrelationBoundaries(t *testing.T) {
	s := newThrough(t, base("one", 443)+correlates("type: event_count, rules: one, timespan: 10s, condition: {gte: 3}, group-by: server.ip"))
	var got []float64
	for _, second := range []float64{0, 5, 10.000000001, 15, 15.5, 25, 25.000000001, 26, 1000, 1001, 1011} {
		for _, m := range s.see(at(second, "192.0.2.1", "198.51.100.1", 443)) {
			got = append(got, second)
			if c := m.Correlation; c.Count != 3 || c.AtLeast || c.To != int64(second*1e9) {
				t.Errorf("%+v", c)
			}
		}
	}
	// At 10.000000001 the first is out of the window; at 15, the second is just in it.
	// Then nothing is raised up to 25; at 25.000000001 there are 15.5, 25 and this one.
	if want := []float64{15, 25.000000001}; !slices.Equal(got, want) {
		t.Errorf("holds at %v, want %v", got, want)
	}
}

// One alert for a group and window, with what was counted, in words.
func TestCorrelationMatch(t *testing.T) {
	s := newThrough(t, base("one", 443)+correlates("type: value_count, rules: one, timespan: 1d, condition: {gte: 2, field: server.ip}, group-by: [client.ip, tls.client.server_name]")+
		"oddcert: {verdict: shared, reason: '{client.ip} met {oddcert.correlation.count} servers, the last at {server.ip}, {oddcert.correlation.group}, {oddcert.correlation.from}, {oddcert.correlation.to}', verdict_reasons: ['{tls.client.server_name}']}\n")
	var got []Match
	for i := range 6 {
		got = append(got, s.see(at(float64(i), "192.0.2.1", fmt.Sprintf("198.51.100.%d", 1+i/2), 443))...)
		other := at(float64(i), "192.0.2.2", "198.51.100.1", 443)
		other.ClientHello = nil // no value of a field that it is grouped by
		got = append(got, s.see(other)...)
	}
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	m := got[0]
	if m.Field != "server.ip" || m.Value != "198.51.100.2" || m.ChainIndex != -1 || m.Rule.Title != "Many" {
		t.Errorf("%+v", m)
	}
	if want := "192.0.2.1 met 2 servers, the last at 198.51.100.2, 192.0.2.1, www.example.net, 1970-01-01T00:00:01Z, 1970-01-01T00:00:02Z"; m.Reason != want {
		t.Errorf("reason %q, want %q", m.Reason, want)
	}
	if want := []string{"2 values of server.ip for client.ip 192.0.2.1, tls.client.server_name www.example.net from 1970-01-01T00:00:01Z to 1970-01-01T00:00:02Z (timespan 1d)", "www.example.net"}; !slices.Equal(m.Reasons, want) {
		t.Errorf("reasons %q", m.Reasons)
	}
	if stats := s.c.Stats(); stats.Ungrouped != 6 || stats.Matches != 1 || stats.Groups != 1 {
		t.Errorf("%+v", stats)
	}
}

// Fields of a chain speak of the certificate that the rule matched.
func TestCorrelationOfCertificate(t *testing.T) {
	for position, want := range []string{"www.example.net", "Example CA"} {
		text := strings.Replace(base("one", 443), "server.port: 443", fmt.Sprintf("oddcert.chain.position: %d", position), 1)
		s := newThrough(t, text+correlates("type: event_count, rules: one, timespan: 1d, condition: {gte: 2}, group-by: oddcert.chain.x509.subject.common_name"))
		s.see(ordinary())
		got := s.see(ordinary())
		if len(got) != 1 || got[0].ChainIndex != position || got[0].Correlation.Group[0].Value != want {
			t.Errorf("%+v", got)
		}
	}
}

// Rules that a correlation refers to raise nothing of their own unless it says so.
func TestGenerate(t *testing.T) {
	for generate, want := range map[string]int{"": 0, ", generate: false": 0, ", generate: true": 2} {
		s := newThrough(t, base("one", 443)+correlates("type: event_count, rules: one, timespan: 1d, condition: {gte: 3}"+generate))
		h := at(1, "192.0.2.1", "198.51.100.1", 443)
		if got := len(s.see(h)) + len(s.see(h)); got != want {
			t.Errorf("%q: %d matches, want %d", generate, got, want)
		}
	}
	// One that is not enabled takes nothing, and silences nothing.
	s := newThrough(t, base("one", 443)+correlates("type: event_count, rules: one, timespan: 1d, condition: {gte: 1}")+"oddcert: {enabled: false}\n")
	if got := s.see(at(1, "192.0.2.1", "198.51.100.1", 443)); len(got) != 1 || got[0].Rule.name != "one" {
		t.Errorf("%+v", got)
	}
}

// Counts are those of a program that remembers everything and looks through it for
// each match: of all kinds and conditions, with times that now and then go back.
func TestCorrelatorAgainstMemory(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	held := map[string]int{}
	for round := range 300 {
		kind := correlationTypes[random.IntN(4)]
		span := float64(1 + random.IntN(20))
		least, most := 1+random.IntN(5), 1<<30
		condition := fmt.Sprintf("gte: %d", least)
		if random.IntN(3) == 0 {
			most = least + random.IntN(3)
			condition += fmt.Sprintf(", lte: %d", most)
		}
		switch kind {
		case "value_count":
			condition = "condition: {field: client.ip, " + condition + "}"
		case "event_count":
			condition = "condition: {" + condition + "}"
		default:
			least, most, condition = 3, 3, "generate: false"
		}
		s := newThrough(t, base("p1", 1)+base("p2", 2)+base("p3", 3)+strings.Replace(base("odd", 4), "server.port: 4", "server.port: [1, 3]", 1)+correlates(
			fmt.Sprintf("type: %s, rules: [p1, p2, odd], timespan: %ds, group-by: server.ip, %s", kind, int(span), condition)))
		type seen struct {
			time    float64
			client  int
			members []int
		}
		memory := map[int][]seen{}
		raised := map[int]float64{}
		now, newest := 100.0, 0.0
		for range 200 {
			now += float64(random.IntN(4*int(span))) / 4
			newest = max(newest, now)
			if random.IntN(50) == 0 && kind != "temporal_ordered" && kind != "value_count" && kind != "temporal" {
				now = max(now-float64(random.IntN(int(span))), newest-span)
			}
			server, client, port := random.IntN(2), random.IntN(8), 1+random.IntN(4)
			members := map[int][]int{1: {0, 2}, 2: {1}, 3: {2}}[port]
			got := s.see(at(now, fmt.Sprintf("192.0.2.%d", client), fmt.Sprintf("198.51.100.%d", server), uint16(port)))
			got = slices.DeleteFunc(slices.Clone(got), func(m Match) bool { return m.Rule.correlation == nil })
			if members == nil {
				continue
			}
			memory[server] = append(slices.DeleteFunc(memory[server], func(e seen) bool { return now-e.time > span }), seen{now, client, members})
			var in []seen
			for _, e := range memory[server] {
				if now-e.time <= span && e.time-now <= span {
					in = append(in, e)
				}
			}
			n := 0
			switch kind {
			case "event_count":
				n = len(in)
			case "value_count":
				clients := map[int]bool{}
				for _, e := range in {
					clients[e.client] = true
				}
				n = len(clients)
			case "temporal":
				of := map[int]bool{}
				for _, e := range in {
					for _, m := range e.members {
						of[m] = true
					}
				}
				n = len(of)
			case "temporal_ordered":
				for i, a := range in {
					for j := i + 1; j < len(in); j++ {
						if slices.Contains(a.members, 0) && slices.Contains(in[j].members, 1) && j < len(in)-1 && slices.Contains(members, 2) {
							n = 3
						}
					}
				}
			}
			last, ok := raised[server]
			want := n >= least && n <= most && !(ok && now-last <= span && last-now <= span)
			if want {
				raised[server] = now
				held[kind]++
			}
			if want != (len(got) == 1) {
				t.Fatalf("round %d, %s, %s, %v s: at %v %d are counted: %v, want %v", round, kind, condition, span, now, n, got, want)
			}
			if want && kind == "event_count" && !got[0].Correlation.AtLeast && got[0].Correlation.Count != n {
				t.Fatalf("%d are counted, want %d", got[0].Correlation.Count, n)
			}
		}
	}
	for _, kind := range correlationTypes {
		if held[kind] < 20 {
			t.Errorf("%s held %d times only", kind, held[kind])
		}
	}
}

// A field with a million values, and a million groups, do not grow beyond what is
// allowed; a group that is nearly full outlives those with one match.
func TestCorrelatorBounded(t *testing.T) {
	s := newThrough(t, base("one", 443)+correlates("type: value_count, rules: one, timespan: 31d, condition: {gte: 1000, field: client.ip}, group-by: server.ip"))
	address := func(prefix byte, n int) netip.Addr {
		return netip.AddrFrom4([4]byte{prefix, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	h := at(1, "192.0.2.1", "198.51.100.1", 443)
	matches := s.m.Match(h, nil, nil)
	for i := range 999 { // all but one of the values of a group
		h.Flow.Endpoints[0].Addr = address(10, i)
		s.c.See(h, nil, matches)
	}
	if used := s.c.Stats().Memory; used > 64<<10 {
		t.Errorf("one group holds %d bytes", used)
	}
	for i := range 200_000 {
		h.Flow.Endpoints[1].Addr = address(20, i)
		if got := s.c.See(h, nil, matches); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
	}
	stats := s.c.Stats()
	if stats.Memory > maxCorrelationMemory || stats.GivenUp == 0 || stats.GivenUp+uint64(stats.Groups) != 200_001 {
		t.Errorf("%+v", stats)
	}
	sum := 0
	for _, g := range s.c.groups {
		sum += g.memory()
	}
	if sum != stats.Memory {
		t.Errorf("%d bytes are counted, %d are held", stats.Memory, sum)
	}
	h.Flow.Endpoints = at(1, "11.0.0.1", "198.51.100.1", 443).Flow.Endpoints
	if got := s.c.See(h, nil, matches); len(got) != 1 || got[0].Correlation.Count != 1000 {
		t.Errorf("the group with most values was given up: %+v", got)
	}
	// What was raised stays raised: more values of the group hold no more.
	before := s.c.Stats().Memory
	for i := range 5000 {
		h.Flow.Endpoints[0].Addr = address(12, i)
		if got := s.c.See(h, nil, matches); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
	}
	if after := s.c.Stats().Memory; after > before {
		t.Errorf("%d bytes, %d before", after, before)
	}
	s.c.Next()
	if stats := s.c.Stats(); stats.Groups != 0 || stats.Memory != 0 {
		t.Errorf("%+v", stats)
	}
}

// A handshake that no correlation looks at costs nothing.
func TestCorrelatorAllocations(t *testing.T) {
	s := newThrough(t, base("one", 443)+base("two", 444)+correlates("type: event_count, rules: one, timespan: 1d, condition: {gte: 3}"))
	h := at(1, "192.0.2.1", "198.51.100.1", 444)
	matches := s.m.Match(h, nil, nil)
	if n := testing.AllocsPerRun(100, func() {
		if got := s.c.See(h, nil, matches); len(got) != 1 {
			t.Fatal(got)
		}
		s.c.See(h, nil, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Aliases: the client of one rule is the server of another.
func TestAliases(t *testing.T) {
	s := newThrough(t, base("one", 1)+base("two", 2)+correlates("type: temporal_ordered, rules: [one, two], timespan: 1h, group-by: host, aliases: {host: {one: server.ip, two: client.ip}}"))
	for i, c := range []struct {
		client, server string
		port           uint16
		want           int
	}{
		{"192.0.2.1", "192.0.2.2", 1, 0},
		{"192.0.2.1", "192.0.2.2", 2, 0},
		{"192.0.2.2", "192.0.2.9", 2, 1},
	} {
		got := s.see(at(float64(i), c.client, c.server, c.port))
		if len(got) != c.want {
			t.Errorf("%d: %+v", i, got)
		}
		if len(got) == 1 && got[0].Correlation.Group[0] != (ByValue{"host", "192.0.2.2"}) {
			t.Errorf("%+v", got[0].Correlation)
		}
	}
}

// A filter takes matches away from the rules that it names, wherever they are.
func TestFilters(t *testing.T) {
	rules := base("one", 443) + base("two", 443)
	rules = strings.Replace(rules, "000443\nname: two", "000444\nname: two", 1)
	filter := func(of, condition string) string {
		return "title: Ours\nid: 33333333-0000-0000-0000-000000000000\nlogsource: {product: oddcert}\nfilter:\n  rules: " + of +
			"\n  ours: {server.ip|cidr: 198.51.100.0/24}\n  guests: {client.ip: 192.0.2.9}\n  condition: " + condition + "\n"
	}
	for _, c := range []struct {
		of, condition string
		want          string // of the rules that match a guest at one of our servers, somebody there, and somebody elsewhere
	}{
		{"one", "not ours", "two;two;one two"},
		{"[two]", "not ours and not guests", "one;one;one two"},
		{"[one, 00000000-0000-0000-0000-000000000444]", "not 1 of them", ";;one two"},
		{"any", "not (ours and guests)", ";one two;one two"},
		{"any", "ours", "one two;one two;"},
	} {
		set, err := Load(Source{"a", mapFS("r.yml", rules)}, Source{"b", mapFS("f.yml", filter(c.of, c.condition))})
		if err != nil {
			t.Fatal(err)
		}
		if positive := c.condition == "ours"; positive != strings.Contains(set.Warnings().Error(), "write not before it") {
			t.Errorf("%s: warnings %v", c.condition, set.Warnings())
		}
		if len(set.Empty()) != 0 || len(set.Rules()) != 2 {
			t.Errorf("a filter counts as %d rules, no rules in %v", len(set.Rules()), set.Empty())
		}
		var got []string
		for _, ends := range [][2]string{{"192.0.2.9", "198.51.100.1"}, {"192.0.2.1", "198.51.100.1"}, {"192.0.2.1", "203.0.113.1"}} {
			var names []string
			for _, m := range set.NewMatcher(nil).Match(at(1, ends[0], ends[1], 443), nil, nil) {
				names = append(names, m.Rule.name)
			}
			got = append(got, strings.Join(names, " "))
		}
		if strings.Join(got, ";") != c.want {
			t.Errorf("%s, %s: %s, want %s", c.of, c.condition, strings.Join(got, ";"), c.want)
		}
	}
	// A filter with the same id takes the place of an earlier one.
	set, err := Load(Source{"a", mapFS("r.yml", rules)}, Source{"b", mapFS("f.yml", filter("any", "not ours"))}, Source{"c", mapFS("f.yml", filter("any", "not guests"))})
	if err != nil {
		t.Fatal(err)
	}
	if got := set.NewMatcher(nil).Match(at(1, "192.0.2.1", "198.51.100.1", 443), nil, nil); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

// Another field of the same handshake, of the same certificate where both speak of
// one.
func TestFieldref(t *testing.T) {
	for _, c := range []struct {
		line string
		want bool
	}{
		{"tls.client.server_name|fieldref: tls.server.x509.subject.common_name", true},
		{"tls.client.server_name|fieldref: tls.server.x509.issuer.common_name", false},
		{"tls.client.server_name|fieldref: [tls.server.x509.issuer.common_name, tls.server.x509.subject.common_name]", true},
		{"tls.client.server_name|fieldref|all: [tls.server.x509.issuer.common_name, tls.server.x509.subject.common_name]", false},
		{"tls.client.server_name|fieldref|neq: tls.server.x509.issuer.common_name", true},
		{"tls.client.server_name|fieldref|neq: tls.server.x509.subject.common_name", false},
		{"tls.server.x509.alternative_names|fieldref: tls.client.server_name", true},
		{"oddcert.chain.name|fieldref: tls.client.server_name", true},
		{"oddcert.chain.x509.subject.common_name|fieldref: oddcert.chain.x509.issuer.common_name", false},
		{"oddcert.chain.x509.issuer.common_name|fieldref: tls.server.x509.issuer.common_name", true},
		{"oddcert.chain.not_before|fieldref: tls.server.not_before", true},
		{"server.port|fieldref: client.port", false},
		{"server.ip|fieldref: destination.ip", true},
		{"server.ip|fieldref: client.ip", false},
		{"oddcert.raw_key.sha256|fieldref: oddcert.client_raw_key.sha256", false},
		{"oddcert.chain.hash.sha256|fieldref: tls.server.hash.sha256", true},
		{"tls.next_protocol|fieldref: tls.client.server_name", false},
		// Times.
		{"tls.server.not_after|gt: 2033-01-01", true},
		{"tls.server.not_after|lt: 2033-01-01", false},
		{"tls.server.not_after|gte: '2033-05-18T03:33:20Z'", true},
		{"tls.server.not_after|gt: '2033-05-18T03:33:20Z'", false},
		{"tls.server.not_after|lte: '2033-05-18T05:33:20+02:00'", true},
		{"oddcert.chain.not_before|lt: '2001-09-09T01:46:41Z'", true},
	} {
		s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + c.line + "\ncondition: a")})
		got := matches(t, s, sample())
		if (len(got) == 1) != c.want {
			t.Errorf("%s: %v", c.line, !c.want)
		}
		if len(got) == 1 && got[0].Value == "" {
			t.Errorf("%s: no value in %+v", c.line, got[0])
		}
	}
	// Nothing equals what is not there.
	h := sample()
	h.ClientHello.ServerName, h.ServerHello.ALPN = "", ""
	for line, want := range map[string]bool{"tls.client.server_name|fieldref: tls.next_protocol": false, "tls.client.server_name|fieldref|neq: tls.next_protocol": true} {
		if got := matches(t, mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + line + "\ncondition: a")}), h); (len(got) == 1) != want {
			t.Errorf("%s: %v", line, !want)
		}
	}
}

// The sum of what is raised and of what summaries count is what matched, whatever
// comes, and each window is told at its end.
func TestSuppressor(t *testing.T) {
	text := rule("a: {server.port: [443, 8443]}\ncondition: a") + "oddcert: {suppress: {by: [server.ip, tls.client.server_name], for: 10s}}\n"
	set := mustLoad(t, map[string]string{"r.yml": text})
	random := rand.New(rand.NewPCG(7, 8))
	for range 50 {
		m, s := set.NewMatcher(nil), NewSuppressor(nil, 1)
		matched, raised, counted := 0, 0, uint64(0)
		alerts := map[string][]float64{} // by what makes them alike
		now, last := 1000.0, int64(0)
		check := func(all []Summary) {
			for _, sum := range all {
				counted += sum.Count
				if sum.Count == 0 || sum.First > sum.Last || sum.Raised > sum.First || sum.Last > sum.Time || sum.Time < last || sum.Last > sum.Raised+10e9 ||
					sum.FirstAlert != fmt.Sprintf("%s %v", sum.By, float64(sum.Raised)/1e9) || sum.By[0].Field != "server.ip" {
					t.Fatalf("%+v", sum)
				}
				last = sum.Time
			}
		}
		for range 400 {
			now += float64(random.IntN(12)) / 4
			h := at(now, "192.0.2.1", fmt.Sprintf("198.51.100.%d", random.IntN(3)), 443)
			if random.IntN(3) == 0 {
				h.ClientHello = nil
			}
			check(s.Due(h.End.Time, nil))
			for _, match := range m.Match(h, nil, nil) {
				matched++
				key := fmt.Sprint(h.Flow.Endpoints[1].Addr, h.ClientHello == nil)
				before := alerts[key]
				want := len(before) == 0 || now-before[len(before)-1] > 10
				got := s.Admit(h, nil, &match)
				if got != want {
					t.Fatalf("raised: %v at %v, after %v", got, now, before)
				}
				if got {
					raised++
					alerts[key] = append(before, now)
					s.Raised(&match, fmt.Sprintf("%s %v", match.window.By, now))
				}
			}
		}
		check(s.Flush(nil))
		if matched != raised+int(counted) || counted == 0 || s.Stats().Suppressed != counted || s.Stats().Windows != 0 || s.Stats().Memory != 0 {
			t.Fatalf("%d matched, %d were raised, %d counted, %+v", matched, raised, counted, s.Stats())
		}
	}
}

// Where there is no room for more windows, their counts are told at once.
func TestSuppressorBounded(t *testing.T) {
	set := mustLoad(t, map[string]string{"r.yml": rule("a: {server.port: 443}\ncondition: a") + "oddcert: {suppress: {by: [server.ip], for: 30d}}\n"})
	s := NewSuppressor(nil, 1)
	h := at(1, "192.0.2.1", "198.51.100.1", 443)
	match := set.NewMatcher(nil).Match(h, nil, nil)[0]
	raised, counted := 0, uint64(0)
	const n = 150_000
	for i := range n {
		h.End.Time = int64(i) * 1e6
		h.Flow.Endpoints[1].Addr = netip.AddrFrom4([4]byte{20, byte(i / 2 >> 16), byte(i / 2 >> 8), byte(i / 2)})
		for _, sum := range s.Due(h.End.Time, nil) {
			counted += sum.Count
			if sum.Time != h.End.Time-1e6 && sum.Time != h.End.Time {
				t.Fatalf("%+v at %d", sum, h.End.Time)
			}
		}
		if s.Admit(h, nil, &match) {
			raised++
		}
	}
	if stats := s.Stats(); stats.Memory > maxSuppressionMemory || stats.GivenUp == 0 || counted != stats.GivenUp {
		t.Errorf("%+v, %d counted", stats, counted)
	}
	for _, sum := range s.Flush(nil) {
		counted += sum.Count
	}
	if raised+int(counted) != n || raised != n/2 {
		t.Errorf("%d were raised, %d counted", raised, counted)
	}
}

// A clock that is wrong for one packet loses no match.
func TestSuppressorClock(t *testing.T) {
	set := mustLoad(t, map[string]string{"r.yml": rule("a: {server.port: 443}\ncondition: a") + "oddcert: {suppress: {by: [server.ip], for: 1h}}\n"})
	s, m := NewSuppressor(nil, 1), set.NewMatcher(nil)
	raised, counted := 0, uint64(0)
	times := []float64{100, 101, 9e9, 102, 103, 99, -9e9, 104, 105}
	for _, now := range times {
		h := at(now, "192.0.2.1", "198.51.100.1", 443)
		for _, sum := range s.Due(h.End.Time, nil) {
			counted += sum.Count
		}
		for _, match := range m.Match(h, nil, nil) {
			if s.Admit(h, nil, &match) {
				raised++
			}
		}
	}
	for _, sum := range s.Flush(nil) {
		counted += sum.Count
	}
	if raised+int(counted) != len(times) {
		t.Errorf("%d were raised, %d counted", raised, counted)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"1s": time.Second, "90m": 90 * time.Minute, "24h": 24 * time.Hour, "4w": 28 * 24 * time.Hour, "1M": 2629746 * time.Second, "31d": 31 * 24 * time.Hour} {
		s := newThrough(t, base("one", 1)+correlates("type: event_count, rules: one, timespan: "+text+", condition: {gte: 1}"))
		if got := s.m.set.Rules()[1].correlation.span; got != int64(want) {
			t.Errorf("%s: %v", text, time.Duration(got))
		}
	}
}

// What a match costs that a correlation counts, and one that is suppressed.
func BenchmarkOrdered(b *testing.B) {
	for name, section := range map[string]string{
		"events": "type: event_count, rules: one, timespan: 1h, group-by: server.ip, condition: {gte: 1000}",
		"values": "type: value_count, rules: one, timespan: 1h, group-by: server.ip, condition: {gte: 1000, field: client.ip}",
	} {
		b.Run(name, func(b *testing.B) {
			s := newThrough(b, base("one", 443)+correlates(section))
			h := at(1, "192.0.2.1", "198.51.100.1", 443)
			matches := s.m.Match(h, nil, nil)
			b.ReportAllocs()
			for i := range b.N {
				h.End.Time += 1e6
				h.Flow.Endpoints[0].Addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
				s.c.See(h, nil, matches)
			}
		})
	}
	b.Run("suppressed", func(b *testing.B) {
		set := mustLoad(b, map[string]string{"r.yml": rule("a: {server.port: 443}\ncondition: a") + "oddcert: {suppress: {by: [server.ip, client.ip], for: 30d}}\n"})
		h, s := at(1, "192.0.2.1", "198.51.100.1", 443), NewSuppressor(nil, 1)
		match := set.NewMatcher(nil).Match(h, nil, nil)[0]
		b.ReportAllocs()
		for b.Loop() {
			s.Due(h.End.Time, nil)
			s.Admit(h, nil, &match)
		}
	})
}
