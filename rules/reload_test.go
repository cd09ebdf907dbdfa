package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// reloaded is all that looks at handshakes, and what it has said of them.
type reloaded struct {
	m    *Matcher
	c    *Correlator
	s    *Suppressor
	said []string
}

func newReloaded(set *Set) *reloaded {
	return &reloaded{m: set.NewMatcher(nil), c: set.NewCorrelator(nil, 1), s: NewSuppressor(nil, 1)}
}

func (r *reloaded) use(set *Set) {
	r.m.Use(set)
	r.c.Use(set)
	r.s.Use(set)
}

// see notes what is raised for a handshake of a client with a server.
func (r *reloaded) see(t *testing.T, seconds float64, client, server int, port uint16) {
	t.Helper()
	h := at(seconds, fmt.Sprintf("192.0.2.%d", client), fmt.Sprintf("198.51.100.%d", server), port)
	r.tell(r.s.Due(h.End.Time, nil))
	for _, m := range r.c.See(h, nil, r.m.Match(h, nil, nil)) {
		if r.m.set.Rule(m.Rule.ID) != m.Rule {
			t.Fatalf("%s is not of the set", m.Rule.ID)
		}
		raised := r.s.Admit(h, nil, &m)
		if raised {
			r.s.Raised(&m, fmt.Sprint(seconds))
		}
		line := fmt.Sprint(seconds, m.Rule.ID, m.Rule.Version, raised, m.Alert(), m.Field, m.Value, m.Reason, m.Reasons)
		if m.Correlation != nil {
			line += fmt.Sprintf("%+v", *m.Correlation)
		}
		r.said = append(r.said, line)
	}
}

// tell notes summaries.
func (r *reloaded) tell(all []Summary) {
	for _, sum := range all {
		r.said = append(r.said, fmt.Sprint(sum.Rule.ID, sum.By, sum.Count, sum.First, sum.Last, sum.Raised, sum.Time, sum.FirstAlert))
	}
}

// Whenever the same rules are loaded again, what is raised, counted and told is what
// it is without that.
func TestReloadSame(t *testing.T) {
	many := func(n int, section string) string {
		return strings.Replace(correlates(section), "0000-000000000000", fmt.Sprintf("0000-%012d", n), 1) + "---\n"
	}
	text := base("one", 1) + base("two", 2) + base("three", 3) +
		many(1, "type: event_count, rules: [one, two], group-by: server.ip, timespan: 20s, condition: {gte: 5}") +
		many(2, "type: value_count, rules: one, group-by: server.ip, timespan: 30s, generate: true, condition: {gte: 3, lt: 6, field: client.ip}") +
		many(3, "type: temporal, rules: [one, two, three], group-by: [server.ip, client.ip], timespan: 1m") +
		many(4, "type: temporal_ordered, rules: [three, two, one], group-by: server.ip, timespan: 15s") +
		many(5, "type: event_count, rules: 11111111-0000-0000-0000-000000000001, generate: true, timespan: 5m, condition: {gte: 2}") +
		strings.TrimSuffix(base("more", 4), "---\n") + "oddcert: {suppress: {by: [server.ip], for: 10s}}\n"
	load := func() *Set { return mustLoad(t, map[string]string{"r.yml": text}) }
	random := rand.New(rand.NewPCG(3, 4))
	said := map[string]int{} // by rule
	for range 30 {
		want, got := newReloaded(load()), newReloaded(load())
		now := 1e6
		for range 300 {
			if random.IntN(8) == 0 {
				got.use(load())
			}
			now += float64(random.IntN(9)) / 2
			client, server, port := random.IntN(4), random.IntN(2), uint16(1+random.IntN(4))
			want.see(t, now, client, server, port)
			got.see(t, now, client, server, port)
		}
		want.tell(want.s.Flush(nil))
		got.tell(got.s.Flush(nil))
		if !slices.Equal(want.said, got.said) {
			t.Fatalf("with reloads\n%s\nwithout\n%s", strings.Join(got.said, "\n"), strings.Join(want.said, "\n"))
		}
		if a, b := want.c.Stats(), got.c.Stats(); a.Groups != b.Groups || a.Matches != b.Matches || a.Ungrouped != b.Ungrouped {
			t.Fatalf("with reloads %+v, without %+v", b, a)
		}
		if a, b := want.s.Stats(), got.s.Stats(); a != b {
			t.Fatalf("with reloads %+v, without %+v", b, a)
		}
		for n := range 6 {
			for _, line := range want.said {
				if strings.Contains(line, fmt.Sprintf("11111111-0000-0000-0000-%012d", n)) {
					said[fmt.Sprint("correlation ", n)]++
				}
			}
		}
		said["suppressed"] += int(want.s.Stats().Suppressed)
	}
	if len(said) != 6 || said["suppressed"] == 0 {
		t.Errorf("not every kind was raised: %v", said)
	}
}

// A correlation goes on with its count where it and all that it counts say the same;
// else it begins anew, and where it is gone nothing of it is left.
func TestReloadCorrelation(t *testing.T) {
	const counts = "type: event_count, rules: one, timespan: 1h, group-by: server.ip, condition: {gte: 3}"
	listed := strings.Replace(base("one", 1), "server.port: 1", "server.port|expand: '%ports%'", 1)
	before := map[string]string{"r.yml": base("one", 1) + base("two", 2) + correlates(counts)}
	withList := func(ports string) map[string]string {
		return map[string]string{"r.yml": listed + correlates(counts), "lists/ports.txt": ports}
	}
	filter := "title: F\nlogsource: {product: oddcert}\nfilter: {rules: one, a: {server.port: 9}, condition: not a}\n---\n"
	for name, c := range map[string]struct {
		before, after map[string]string
		goesOn        bool
		groups        int // that are left at once
	}{
		"nothing changed":         {before, before, true, 1},
		"in another file":         {before, map[string]string{"a.yml": base("one", 1), "b.yml": correlates(counts)}, true, 1},
		"another rule changed":    {before, map[string]string{"r.yml": base("one", 1) + base("two", 22) + correlates(counts)}, true, 1},
		"a list changed":          {withList("1\n"), withList("1\n2\n"), true, 1},
		"the correlation changed": {before, map[string]string{"r.yml": base("one", 1) + correlates(strings.Replace(counts, "1h", "2h", 1))}, false, 0},
		"what it counts changed":  {before, map[string]string{"r.yml": strings.Replace(base("one", 1), "server.port: 1", "server.port: [1, 7]", 1) + correlates(counts)}, false, 0},
		"a filter came":           {before, map[string]string{"r.yml": filter + base("one", 1) + correlates(counts)}, false, 0},
		"it is gone":              {before, map[string]string{"r.yml": base("one", 1)}, false, 0},
	} {
		r := newReloaded(mustLoad(t, c.before))
		alerts := func() (n int) {
			for _, line := range r.said {
				if strings.Contains(line, "11111111-0000-0000-0000-000000000000") {
					n++
				}
			}
			return n
		}
		r.see(t, 1, 1, 1, 1)
		r.see(t, 2, 1, 1, 1)
		after := mustLoad(t, c.after)
		r.use(after)
		if stats := r.c.Stats(); stats.Groups != c.groups || stats.Groups == 0 && stats.Memory != 0 {
			t.Errorf("%s: %+v", name, stats)
		}
		r.see(t, 3, 1, 1, 1)
		if got := alerts() == 1; got != c.goesOn {
			t.Errorf("%s: the third match raises an alert: %v", name, got)
		}
		r.see(t, 4, 1, 1, 1)
		r.see(t, 5, 1, 1, 1)
		if want := min(1, len(after.Rule("00000000-0000-0000-0000-000000000001").feeds)); alerts() != want {
			t.Errorf("%s: %d alerts after five matches, want %d", name, alerts(), want)
		}
	}
}

// Whatever rules come and go: each match is raised or counted in one summary, a
// window goes on where its rule says the same, and ends where it does not.
func TestReloadSuppression(t *testing.T) {
	one := strings.TrimSuffix(base("one", 1), "---\n")
	with := func(text, suppress string) *Set {
		files := map[string]string{"r.yml": base("two", 2)}
		if text != "" {
			files["one.yml"] = text + suppress
		}
		return mustLoad(t, files)
	}
	const suppress = "oddcert: {suppress: {by: [server.ip], for: 1m}}\n"
	sets := []*Set{
		with(one, suppress), with(one, suppress),
		with(one, strings.Replace(suppress, "1m", "2m", 1)),
		with(strings.Replace(one, "level: low", "level: high", 1), suppress),
		with(one, ""), // nothing is counted
		with("", ""),  // no such rule
	}
	random := rand.New(rand.NewPCG(5, 6))
	went := 0 // windows that went on
	for range 100 {
		set := sets[0]
		m, s := set.NewMatcher(nil), NewSuppressor(nil, 1)
		matched, raised, counted := 0, map[string]bool{}, uint64(0)
		now := 1000.0
		check := func(all []Summary) {
			last := int64(0)
			for _, sum := range all {
				counted += sum.Count
				if sum.Count == 0 || !raised[sum.FirstAlert] || sum.Raised > sum.First || sum.Last > sum.Time || sum.Time < last {
					t.Fatalf("%+v", sum)
				}
				last = sum.Time
			}
		}
		for i := range 300 {
			now += float64(random.IntN(40)) / 4
			if random.IntN(10) == 0 {
				before, windows := set, s.Stats().Windows
				set = sets[random.IntN(len(sets))]
				m.Use(set)
				s.Use(set)
				if id := "00000000-0000-0000-0000-000000000001"; set.Rule(id) == nil || before.Rule(id) == nil || set.Rule(id).content != before.Rule(id).content {
					if n := s.Stats(); n.Windows != 0 || n.Memory != 0 {
						t.Fatalf("%+v are left of a rule that is gone", n)
					}
				} else if n := s.Stats().Windows; n != windows {
					t.Fatalf("%d windows of %d are left", n, windows)
				} else if before != set {
					went += n
				}
			}
			h := at(now, "192.0.2.1", fmt.Sprintf("198.51.100.%d", random.IntN(3)), 1)
			check(s.Due(h.End.Time, nil))
			for _, match := range m.Match(h, nil, nil) {
				matched++
				if s.Admit(h, nil, &match) {
					id := fmt.Sprint(i)
					raised[id] = true
					s.Raised(&match, id)
				}
			}
		}
		check(s.Flush(nil))
		if matched != len(raised)+int(counted) || counted == 0 {
			t.Fatalf("%d matched, %d were raised, %d counted", matched, len(raised), counted)
		}
	}
	if went == 0 {
		t.Error("no window went on")
	}
}

// A matcher that goes on with another set finds what a new one finds: it does not
// remember what certificates meant to the set before.
func TestReloadMatcher(t *testing.T) {
	h := sample()
	load := func(organisations ...string) *Set {
		files := map[string]string{}
		for i, name := range organisations {
			text := strings.Replace(base("one", i), fmt.Sprintf("server.port: %d", i), "oddcert.chain.x509.subject.organization: "+name, 1)
			files[fmt.Sprint(i, ".yml")] = text
		}
		return mustLoad(t, files)
	}
	m := load("Other").NewMatcher(nil)
	for i, set := range []*Set{load("Example"), load("Other", "Example", "Example"), load("Other"), load("Example", "Example")} {
		m.Use(set)
		for range 2 {
			got, want := m.Match(h, nil, nil), set.NewMatcher(nil).Match(h, nil, nil)
			if !slices.EqualFunc(got, want, func(a, b Match) bool { return a.Rule == b.Rule }) || len(want) != []int{1, 2, 0, 2}[i] {
				t.Errorf("set %d: %d matches, and %d of a new matcher", i, len(got), len(want))
			}
		}
	}
}

// What is told of a reload is what has changed, by id.
func TestReloadChanges(t *testing.T) {
	const counts = "type: event_count, rules: one, timespan: 1h, condition: {gte: 3}"
	before := mustLoad(t, map[string]string{"r.yml": base("one", 1) + base("two", 2) + base("three", 3) + correlates(counts)})
	for text, want := range map[string]Changes{
		base("one", 1) + base("two", 2) + base("three", 3) + correlates(counts):                  {},
		base("two", 2) + base("one", 1) + base("four", 4) + base("five", 5) + correlates(counts): {Added: 2, Removed: 1},
		strings.Replace(base("one", 1), "low", "high", 1) + base("two", 2) + correlates(counts):  {Removed: 1, Changed: 2}, // and what counts it
		base("six", 6): {Added: 1, Removed: 4},
	} {
		after := mustLoad(t, map[string]string{"r.yml": text})
		if got := after.Since(before); got != want {
			t.Errorf("%+v, want %+v after\n%s", got, want, text)
		}
		if got, back := before.Since(after), (Changes{want.Removed, want.Added, want.Changed}); got != back {
			t.Errorf("%+v on the way back, want %+v", got, back)
		}
	}
}
