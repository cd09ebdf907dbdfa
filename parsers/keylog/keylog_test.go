package keylog

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// line is a line of a key log for handshake i.
func line(label string, i, n int) string {
	return fmt.Sprintf("%s %064x %s\n", label, i, strings.Repeat(fmt.Sprintf("%02x", i&0xff), n))
}

func random(i int) *Random {
	var r Random
	b, _ := hex.DecodeString(fmt.Sprintf("%064x", i))
	copy(r[:], b)
	return &r
}

func TestLines(t *testing.T) {
	good := line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 7, 32)
	for _, c := range []struct {
		name, text     string
		client, server int // lengths of the secrets of handshake 7
		stats          Stats
	}{
		{"server", good, 0, 32, Stats{Secrets: 1}},
		{"both", good + line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 7, 48), 48, 32, Stats{Secrets: 2}},
		{"of drafts of QUIC", "QUIC_" + good + "QUIC_" + line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 7, 32), 32, 32, Stats{Secrets: 2}},
		{"no end of line", strings.TrimSpace(good), 0, 32, Stats{Secrets: 1}},
		{"CRLF, tabs, capitals, space around", " " + strings.Replace(strings.ToUpper(strings.TrimSpace(good)), " ", "\t  ", 1) + " \r\n", 0, 32, Stats{Secrets: 1}},
		{"comments and empty lines", "# SSL/TLS secrets log file\n\n\r\n" + good, 0, 32, Stats{Secrets: 1}},
		{"again", good + good, 0, 32, Stats{Secrets: 2}},
		{"the later wins", good + line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 7, 48), 0, 48, Stats{Secrets: 2}},
		{"other labels", line("CLIENT_RANDOM", 7, 48) + line("EXPORTER_SECRET", 7, 32) + line("SERVER_TRAFFIC_SECRET_0", 7, 32) +
			line("CLIENT_EARLY_TRAFFIC_SECRET", 7, 32) + line("ECH_CONFIG", 7, 3000) + "RSA 0123456789abcdef 00\n" + good, 0, 32, Stats{Secrets: 1, Other: 6}},
		{"random too short", strings.Replace(good, " 0", " ", 1), 0, 0, Stats{Malformed: 1}},
		{"secret of another length", line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 7, 31), 0, 0, Stats{Malformed: 1}},
		{"no digits", strings.Replace(good, "07\n", "0g\n", 1), 0, 0, Stats{Malformed: 1}},
		{"no digits in the random value", strings.Replace(good, "7 0", "x 0", 1), 0, 0, Stats{Malformed: 1}},
		{"no secret", "SERVER_HANDSHAKE_TRAFFIC_SECRET\n", 0, 0, Stats{Malformed: 1}},
		{"prose", "The quick brown fox.\n" + good, 0, 32, Stats{Secrets: 1, Malformed: 1}},
		{"binary", "\x00\x01\xff\xfe\n" + good, 0, 32, Stats{Secrets: 1, Malformed: 1}},
		{"a line too long", strings.Repeat("A", maxLine+1) + "\n" + good, 0, 32, Stats{Secrets: 1, Malformed: 1}},
		{"no line at all", strings.Repeat("A", 3*maxLine), 0, 0, Stats{Malformed: 1}},
	} {
		for _, piece := range []int{1, 7, len(c.text)} {
			var s Store
			warnings := 0
			l := s.Log("keys.log", func(err error) {
				warnings++
				if strings.Contains(err.Error(), strings.Repeat("07", 10)) {
					t.Errorf("%s: a secret in %q", c.name, err)
				}
			})
			for b := []byte(c.text); len(b) > 0; {
				n := min(piece, len(b))
				l.Write(bytes.Clone(b[:n]))
				b = b[n:]
			}
			l.Close()
			got := s.Secrets(random(7))
			if len(got.Client) != c.client || len(got.Server) != c.server || s.Stats() != c.stats || s.Added() != c.stats.Secrets {
				t.Errorf("%s, %d at a time: %d, %d, %+v", c.name, piece, len(got.Client), len(got.Server), s.Stats())
			}
			if want := min(c.stats.Malformed, 1); uint64(warnings) != want {
				t.Errorf("%s: %d warnings, want %d", c.name, warnings, want)
			}
			if cap(l.part) > 2*maxLine+bytes.MinRead {
				t.Errorf("%s: %d bytes held of a line", c.name, cap(l.part))
			}
		}
	}
}

// The warning names the file and the line.
func TestWarning(t *testing.T) {
	var s Store
	var got error
	s.Add("keys.log", []byte(line("CLIENT_RANDOM", 1, 48)+"\n# x\nwhat?\n"), func(err error) { got = err })
	if got == nil || !strings.Contains(got.Error(), "read keys.log: line 4 ") {
		t.Errorf("%v", got)
	}
}

// A store holds so many handshakes, and the oldest go first.
func TestEviction(t *testing.T) {
	var s Store
	l := s.Log("keys.log", nil)
	for i := range maxHandshakes + 100 {
		fmt.Fprint(l, line("SERVER_HANDSHAKE_TRAFFIC_SECRET", i, 32))
	}
	fmt.Fprint(l, line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 101, 32)) // is there already
	l.Close()
	for i, want := range map[int]bool{0: false, 99: false, 100: true, 101: true, maxHandshakes + 99: true} {
		if got := s.Secrets(random(i)); (got.Server != nil) != want {
			t.Errorf("handshake %d: %v", i, got.Server != nil)
		}
	}
	if n := s.Stats().Evicted; n != 100 || len(s.handshakes) != maxHandshakes {
		t.Errorf("%d evicted, %d held", n, len(s.handshakes))
	}
}

// What crypto/tls writes is read.
func TestCryptoTLS(t *testing.T) {
	var log bytes.Buffer
	a, b := net.Pipe()
	go func() {
		tls.Server(b, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("none")
		}}).Handshake()
		b.Close()
	}()
	tls.Client(a, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &log}).Handshake()
	a.Close()
	var s Store
	s.Add("test", log.Bytes(), func(err error) { t.Error(err) })
	if st := s.Stats(); st.Malformed > 0 || log.Len() > 0 && st.Secrets == 0 {
		t.Errorf("%+v of %q", st, log.String())
	}
}

func TestLookupAllocations(t *testing.T) {
	var s Store
	s.Add("test", []byte(line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 7, 32)), nil)
	r := random(7)
	if n := testing.AllocsPerRun(100, func() { s.Secrets(r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal(what)
}

// A file that is followed is read completely at once; then what is appended, in
// pieces of lines, and what takes its place.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.log")
	var s Store
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := s.Follow(ctx, path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write := func(flags int, text string) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, text)
		f.Close()
	}
	has := func(i int) func() bool {
		return func() bool { return s.Secrets(random(i)).Server != nil }
	}
	write(0, line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 1, 32))
	var mu sync.Mutex
	var warnings []error
	err := s.Follow(ctx, path, func(err error) {
		mu.Lock()
		warnings = append(warnings, err)
		mu.Unlock()
	})
	if err != nil || !has(1)() {
		t.Fatalf("what is there at the start: %v", err)
	}
	second := line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 2, 32)
	write(os.O_APPEND, second[:50])
	time.Sleep(2 * pollInterval)
	if has(2)() {
		t.Error("half a line counts")
	}
	write(os.O_APPEND, second[50:])
	eventually(t, "what was appended is not there", has(2))
	write(os.O_TRUNC, line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 3, 32))
	eventually(t, "the shorter file is not there", has(3))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * pollInterval)
	write(0, line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 4, 32)+line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 5, 32))
	eventually(t, "the file in its place is not there", has(5))
	mu.Lock()
	defer mu.Unlock()
	if len(warnings) > 0 {
		t.Errorf("%v", warnings)
	}
}

// FuzzLog gives a key log whole and in pieces.
func FuzzLog(f *testing.F) {
	both := line("SERVER_HANDSHAKE_TRAFFIC_SECRET", 7, 32) + line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 7, 48)
	f.Add([]byte(both), uint16(9))
	f.Add([]byte("# x\r\n\nQUIC_"+both+"CLIENT_RANDOM 00 11\nRSA 0 1"), uint16(1))
	f.Add([]byte("SERVER_HANDSHAKE_TRAFFIC_SECRET\x00 "), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		var whole, cut Store
		whole.Add("a", b, nil)
		l := cut.Log("b", nil)
		for rest := b; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			l.Write(rest[:n])
			rest = rest[n:]
		}
		l.Close()
		st := whole.Stats()
		if st != cut.Stats() || len(whole.handshakes) != len(cut.handshakes) {
			t.Fatalf("%+v, in pieces %+v", st, cut.Stats())
		}
		if n := uint64(bytes.Count(b, []byte("\n")) + 1); st.Secrets+st.Other+st.Malformed > n || uint64(len(whole.handshakes)) > st.Secrets {
			t.Errorf("%+v of %d lines", st, n)
		}
		lower := bytes.ToLower(b)
		for r, s := range whole.handshakes {
			for _, secret := range [][]byte{s.Client, s.Server} {
				if secret != nil && (len(secret) != 32 && len(secret) != 48 || !bytes.Contains(lower, []byte(hex.EncodeToString(secret)))) ||
					!bytes.Contains(lower, []byte(hex.EncodeToString(r[:]))) {
					t.Errorf("%x is not in the log", secret)
				}
			}
		}
	})
}

// What came with a capture is forgotten with it, and nothing else.
func TestForget(t *testing.T) {
	var s Store
	text := func(from, to int) (b []byte) {
		for i := from; i < to; i++ {
			b = append(b, line("SERVER_HANDSHAKE_TRAFFIC_SECRET", i, 32)+"\n"...)
		}
		return b
	}
	for round := range 3 {
		s.Add("log", text(round*10, round*10+10), nil)
		own := s.Own("capture", nil)
		own.Write(text(1000, 1010))
		own.Write(text(0, 1)) // the key log has it, too
		own.Close()
		if s.Secrets(random(1005)).Server == nil {
			t.Fatal("the secrets of the capture are not there")
		}
		s.Forget()
		for i := range 1010 {
			if got, want := s.Secrets(random(i)).Server != nil, i < round*10+10; got != want {
				t.Errorf("round %d: secret %d: %v, want %v", round, i, got, want)
			}
		}
		if len(s.order) != len(s.handshakes) {
			t.Errorf("%d in order, %d handshakes", len(s.order), len(s.handshakes))
		}
	}
}
