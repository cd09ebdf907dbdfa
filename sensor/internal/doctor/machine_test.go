package doctor

import (
	"strings"
	"testing"
	"time"
)

// TestJudgeMachine has machines with one thing each that is wrong.
func TestJudgeMachine(t *testing.T) {
	sound := Machine{Kernel: "6.1.0-18-amd64", Processors: 4, Synchronised: true, ClockError: time.Millisecond, Capabilities: capNetRaw | capBPF,
		Landlock: 4, Seccomp: true, JIT: true, OpenFiles: 1 << 16, Memory: 8 << 30, MemoryLimit: 4 << 30}
	for _, f := range sound.Judge() {
		if f.Level != OK || f.Fix != "" {
			t.Errorf("nothing is wrong: %+v", f)
		}
	}
	for _, c := range []struct {
		change func(m *Machine)
		check  string
		level  Level
		fix    string // a part
	}{
		{func(m *Machine) { m.Kernel = "3.10.0-1160.el7.x86_64" }, "kernel", Problem, "uname"},
		{func(m *Machine) { m.Kernel = "4.13.9" }, "kernel", Problem, "uname"},
		{func(m *Machine) { m.Kernel = "4.14" }, "kernel", OK, ""},
		{func(m *Machine) { m.Kernel = "odd" }, "kernel", OK, ""},
		{func(m *Machine) { m.Synchronised = false }, "clock", Warning, "chronyc tracking"},
		{func(m *Machine) { m.ClockError = 16 * time.Second }, "clock", Warning, "chronyc tracking"},
		{func(m *Machine) { m.Capabilities = capBPF }, "capabilities", Problem, "setcap cap_net_raw,cap_bpf+ep"},
		{func(m *Machine) { m.Capabilities = capNetRaw }, "capabilities", Warning, "setcap cap_net_raw,cap_bpf+ep"},
		{func(m *Machine) { m.Capabilities = capNetRaw | capSysAdmin }, "capabilities", OK, ""},
		{func(m *Machine) { m.JIT = false }, "jit", Warning, "sysctl -w net.core.bpf_jit_enable=1"},
		{func(m *Machine) { m.Landlock = 0 }, "sandbox", Warning, "lsm"},
		{func(m *Machine) { m.MemoryLimit = 9 << 30 }, "memory", Problem, "--memory 4096M"},
		{func(m *Machine) { m.MemoryLimit = m.Memory }, "memory", Warning, "--memory 4096M"},
		{func(m *Machine) { m.OpenFiles = 256 }, "files", Warning, "ulimit -n"},
		{func(m *Machine) { m.Governor = "powersave" }, "governor", Warning, "cpupower"},
		{func(m *Machine) { m.Governor = "performance" }, "kernel", OK, ""},
	} {
		m := sound
		c.change(&m)
		if f := find(m.Judge(), c.check); f.Level != c.level || !strings.Contains(f.Fix, c.fix) || c.fix == "" && f.Fix != "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestJudgeFolder has folders for the queue on disk.
func TestJudgeFolder(t *testing.T) {
	for _, c := range []struct {
		folder Folder
		level  Level
		text   string
	}{
		{Folder{Free: 2 << 30, Size: 1 << 30}, OK, "2048 MiB free"},
		{Folder{Free: 1 << 29, Size: 1 << 30}, Warning, "512 MiB free, and the spool may take 1024 MiB"},
		{Folder{System: "NFS", Free: 2 << 30, Size: 1 << 30}, Warning, "of the network (NFS)"},
	} {
		c.folder.Path, c.folder.On = "/var/lib/oddcert/spool", "/var"
		f := c.folder.Judge()
		if len(f) != 1 || f[0].Level != c.level || !strings.Contains(f[0].Text, c.text) || (f[0].Fix == "") != (c.level == OK) {
			t.Errorf("%+v: %+v", c.folder, f)
		}
	}
}

func TestWorst(t *testing.T) {
	ok, warning, problem := Finding{Level: OK}, Finding{Level: Warning}, Finding{Level: Problem}
	for _, c := range []struct {
		findings []Finding
		want     Level
	}{{nil, OK}, {[]Finding{ok}, OK}, {[]Finding{ok, warning, ok}, Warning}, {[]Finding{problem, warning, ok}, Problem}} {
		if got := Worst(c.findings); got != c.want {
			t.Errorf("%v: %s", c.findings, got)
		}
	}
}
