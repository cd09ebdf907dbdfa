package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine is what the figures are for.
type machine struct {
	cpu, kernel string
	cores       int
	memory      int // GiB
	load        string
	versions    []string // of oddcert and the others
}

// describe looks at the machine. What it cannot find out stays empty.
func describe(ctx context.Context, b *bench) machine {
	m := machine{cores: runtime.NumCPU(), load: load()}
	m.cpu = field("/proc/cpuinfo", "model name")
	var kib int
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kib); err == nil {
		m.memory = (kib + 1<<19) >> 20
	}
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.kernel = strings.TrimSpace(string(text))
	m.versions = append(m.versions, firstLine(ctx, b.oddcert, "--version")+" ("+runtime.Version()+")")
	for _, peer := range []struct{ name, flag string }{
		{"suricata", "-V"}, {"tcpdump", "--version"}, {"tshark", "--version"}, {"zstd", "--version"}, {"gzip", "--version"},
	} {
		if path, ok := b.peers[peer.name]; ok {
			m.versions = append(m.versions, firstLine(ctx, path, peer.flag))
		}
	}
	return m
}

// load is how busy the machine is: processes that run or wait, over the last
// minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// field returns the first value of a key in a file of "key: value" lines.
func field(file, key string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// firstLine is how a program answers when asked for its version, be it on
// standard output or standard error.
func firstLine(ctx context.Context, args ...string) string {
	text, _ := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	for line := range bytes.Lines(text) {
		// tshark warns about root first, and an empty line follows that.
		if line := strings.TrimSpace(string(line)); line != "" && !strings.HasPrefix(line, "Running as") {
			line, _, _ = strings.Cut(line, " (Git")
			return strings.Trim(strings.TrimPrefix(line, "This is "), "*. ")
		}
	}
	return args[0]
}
