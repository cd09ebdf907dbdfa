package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// A corpus is a folder with captures, and beside them the certificates that can
// be seen in each (expected.json).
type corpus struct {
	dir      string
	expected map[string]sides[expectedCertificate] // by the capture's path under dir/captures
}

// sides are the certificates of the servers and of the clients.
type sides[T any] struct {
	Server []T `json:"server"`
	Client []T `json:"client"`
}

// expectedCertificate is one that can be seen in a capture. The marks say that
// it need not be found.
type expectedCertificate struct {
	SHA256  string `json:"sha256"`
	Keys    mark   `json:"needs_keylog"`
	Partial mark   `json:"partial_message"`
	Exotic  mark   `json:"exotic"`
}

// mark is set by true, or by a text that says why.
type mark bool

// UnmarshalJSON reads either.
func (m *mark) UnmarshalJSON(b []byte) error {
	*m = mark(!slices.Contains([]string{"false", "null", `""`}, string(b)))
	return nil
}

func (c *expectedCertificate) optional() bool { return bool(c.Keys || c.Partial || c.Exotic) }

// reader is a program that reads the corpus.
type reader struct {
	name string
	args func(capture string) []string
	// certificates reads what the program wrote: SHA-256 in lower-case hex of
	// those of either side, with what carried them where the program says so.
	certificates func(stdout []byte) (sides[shown], error)
}

// shown is a certificate that a program found.
type shown struct{ sha256, carrier string }

// score is how a reader did.
type score struct {
	name           string
	found          sides[finding] // of those that are expected
	wrong          int
	unread         int // captures of which the program says that it could not read them to the end
	wall           time.Duration
	expectedServer int
	expectedClient int
}

// finding is a certificate of a capture.
type finding struct{ capture, sha256 string }

// measureCorpus has each program read each capture of a corpus and prints what
// they found of what is there.
func measureCorpus(ctx context.Context, b *bench, dir string, stdout io.Writer) error {
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		return err
	}
	c := corpus{dir: dir}
	if err := json.Unmarshal(text, &c.expected); err != nil {
		return fmt.Errorf("read expected.json: %w", err)
	}
	readers, err := b.readers()
	if err != nil {
		return err
	}
	var scores []*score
	carriers := make(map[finding]string)
	for _, r := range readers {
		s, err := c.read(ctx, b, r, carriers)
		if err != nil {
			return err
		}
		scores = append(scores, s)
	}
	var s strings.Builder
	m := describe(ctx, b)
	fmt.Fprintf(&s, "%d captures; %s, %d cores; %s.\n\n", len(c.expected), m.cpu, m.cores, strings.Join(m.versions, "; "))
	var rows [][]string
	for _, x := range scores {
		rows = append(rows, []string{x.name, share(len(x.found.Server), x.expectedServer), share(len(x.found.Client), x.expectedClient),
			fmt.Sprint(x.wrong), fmt.Sprint(x.unread), fmt.Sprintf("%.0f s", x.wall.Seconds())})
	}
	table(&s, []string{"program", "server certificates", "client certificates", "others", "captures not read whole", "wall clock"}, rows)
	head, rows := missed(scores, carriers)
	table(&s, head, rows)
	_, err = io.WriteString(stdout, s.String())
	return err
}

// share says how many of how many.
func share(found, expected int) string {
	return fmt.Sprintf("%d of %d (%.0f %%)", found, expected, 100*float64(found)/float64(max(expected, 1)))
}

// missed is a table of what some program has not found, by what carries it.
func missed(scores []*score, carriers map[finding]string) (head []string, rows [][]string) {
	head = []string{"carried by"}
	of := make(map[string][]int)
	for i, s := range scores {
		head = append(head, s.name)
		for _, f := range slices.Concat(s.found.Server, s.found.Client) {
			carrier := carriers[f]
			if of[carrier] == nil {
				of[carrier] = make([]int, len(scores))
			}
			of[carrier][i]++
		}
	}
	for carrier, found := range of {
		if carrier == "" || slices.Min(found) == slices.Max(found) {
			continue
		}
		row := []string{carrier}
		for _, n := range found {
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b []string) int {
		return cmp.Or(-cmp.Compare(len(a[1]), len(b[1])), -cmp.Compare(a[1], b[1]), cmp.Compare(a[0], b[0]))
	})
	return head, rows
}

// read has one program read the captures, one after the other.
func (c *corpus) read(ctx context.Context, b *bench, r reader, carriers map[finding]string) (*score, error) {
	s := &score{name: r.name}
	for i, path := range slices.Sorted(maps.Keys(c.expected)) {
		if i%50 == 0 {
			fmt.Fprintf(b.log, "%s: %d of %d captures\n", r.name, i, len(c.expected))
		}
		capture := filepath.Join(c.dir, "captures", path)
		if _, err := os.Stat(capture); err != nil {
			return nil, err
		}
		args := r.args(capture)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		start := time.Now()
		text, err := cmd.Output()
		s.wall += time.Since(start)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			s.unread++
		} else if err != nil {
			return nil, err
		}
		got, err := r.certificates(text)
		if err != nil {
			return nil, fmt.Errorf("read what %s says of %s: %w", r.name, path, err)
		}
		want := c.expected[path]
		s.judge(path, want, got, carriers)
	}
	return s, nil
}

// judge compares what was found in a capture with what is there. What a program
// takes for the other side's is not found, and yet none of the others.
func (s *score) judge(path string, want sides[expectedCertificate], got sides[shown], carriers map[finding]string) {
	known := make(map[string]bool)
	one := func(want []expectedCertificate, got []shown) (found []finding, expected int) {
		must := make(map[string]bool)
		for i := range want {
			c := &want[i]
			known[c.SHA256] = true
			if !c.optional() {
				must[c.SHA256] = true
			}
		}
		expected = len(must)
		for _, c := range got {
			if !must[c.sha256] {
				continue
			}
			delete(must, c.sha256)
			f := finding{path, c.sha256}
			found = append(found, f)
			if c.carrier != "" {
				carriers[f] = c.carrier
			}
		}
		return found, expected
	}
	server, n := one(want.Server, got.Server)
	s.found.Server, s.expectedServer = append(s.found.Server, server...), s.expectedServer+n
	client, n := one(want.Client, got.Client)
	s.found.Client, s.expectedClient = append(s.found.Client, client...), s.expectedClient+n
	for _, c := range slices.Concat(got.Server, got.Client) {
		if !known[c.sha256] {
			known[c.sha256] = true
			s.wrong++
		}
	}
}

// readers are oddcert and the others that are installed.
func (b *bench) readers() ([]reader, error) {
	all := []reader{{
		name: "oddcert",
		args: func(capture string) []string {
			return []string{b.oddcert, "replay", "--json", "-", "--records", "handshake", capture}
		},
		certificates: recordCertificates,
	}}
	if path, ok := b.peers["tshark"]; ok {
		all = append(all, reader{
			name: tshark,
			// Heuristics first, so that TLS is found on the ports of others.
			args: func(capture string) []string {
				return []string{path, "-n", "-r", capture, "-o", "tcp.try_heuristic_first:TRUE", "-o", "udp.try_heuristic_first:TRUE",
					"-o", "tcp.reassemble_out_of_order:TRUE", "-Y", "tls.handshake.certificate || dtls.handshake.certificate",
					"-T", "fields", "-e", "tls.handshake.certificate", "-e", "dtls.handshake.certificate"}
			},
			certificates: fieldCertificates,
		})
	}
	path, ok := b.peers["suricata"]
	if !ok {
		return all, nil
	}
	// As it ships, with the certificates in the records.
	config, err := os.ReadFile("/etc/suricata/suricata.yaml")
	if err != nil {
		return nil, fmt.Errorf("configure Suricata: %w", err)
	}
	const plain = "        - tls:\n"
	if bytes.Count(config, []byte(plain)) != 1 {
		return nil, errors.New("configure Suricata: no tls in the eve-log of /etc/suricata/suricata.yaml")
	}
	config = bytes.Replace(config, []byte(plain), []byte(plain+"            custom: [chain, client, client_chain]\n"), 1)
	yaml := filepath.Join(b.out, "corpus.yaml")
	if err := os.WriteFile(yaml, config, 0o666); err != nil {
		return nil, err
	}
	eve := filepath.Join(b.out, "eve.json")
	return append(all, reader{
		name: "Suricata",
		args: func(capture string) []string {
			os.Remove(eve)
			return []string{path, "-r", capture, "-c", yaml, "-S", os.DevNull, "-l", b.out, "-k", "none", "--runmode", "single"}
		},
		certificates: func([]byte) (sides[shown], error) {
			text, err := os.ReadFile(eve)
			if errors.Is(err, os.ErrNotExist) { // a capture that it could not open
				return sides[shown]{}, nil
			}
			if err != nil {
				return sides[shown]{}, err
			}
			return eveCertificates(text)
		},
	}), nil
}

// recordCertificates reads oddcert's records.
func recordCertificates(text []byte) (all sides[shown], err error) {
	err = lines(bytes.NewReader(text), func(line []byte) error {
		var r struct {
			Network struct {
				Transport string `json:"transport"`
			} `json:"network"`
			Oddcert struct {
				Carrier     string         `json:"carrier"`
				Tunnel      []string       `json:"tunnel"`
				Chain       traffic.Hashes `json:"chain"`
				ClientChain traffic.Hashes `json:"client_chain"`
			} `json:"oddcert"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		carrier := strings.Join(append(r.Oddcert.Tunnel, r.Oddcert.Carrier), ", ")
		for _, side := range []struct {
			chain traffic.Hashes
			to    *[]shown
		}{{r.Oddcert.Chain, &all.Server}, {r.Oddcert.ClientChain, &all.Client}} {
			for _, sum := range side.chain {
				*side.to = append(*side.to, shown{strings.ToLower(sum), carrier})
			}
		}
		return nil
	})
	return all, err
}

// fieldCertificates reads fields of tshark: the certificates in hex, those of
// a frame in a line. Whose they are it does not say: they count as either's.
func fieldCertificates(text []byte) (all sides[shown], err error) {
	err = lines(bytes.NewReader(text), func(line []byte) error {
		for digits := range bytes.FieldsFuncSeq(line, func(r rune) bool { return r == '\t' || r == ',' }) {
			der, err := hex.DecodeString(string(digits))
			if err != nil {
				return err
			}
			all.Server = append(all.Server, shown{sha256: sumOf(der)})
		}
		return nil
	})
	all.Client = all.Server
	return all, err
}

// eveCertificates reads Suricata's records.
func eveCertificates(text []byte) (all sides[shown], err error) {
	type party struct {
		Chain []string `json:"chain"`
	}
	err = lines(bytes.NewReader(text), func(line []byte) error {
		var r struct {
			TLS struct {
				party
				Client party `json:"client"`
			} `json:"tls"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		for _, side := range []struct {
			party party
			to    *[]shown
		}{{r.TLS.party, &all.Server}, {r.TLS.Client, &all.Client}} {
			for _, c := range side.party.Chain {
				der, err := base64.StdEncoding.DecodeString(c)
				if err != nil {
					return err
				}
				*side.to = append(*side.to, shown{sha256: sumOf(der)})
			}
		}
		return nil
	})
	return all, err
}

func sumOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
