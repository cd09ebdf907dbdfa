package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

// TestHelp holds that the help of each command fits into 80 columns, has what it
// should, and is the same whichever way it is asked for.
func TestHelp(t *testing.T) {
	allCommands(rootCommand(), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		var help, other bytes.Buffer
		if status := run(append(path, "--help"), &help, &help); status != exitOK {
			t.Errorf("%s: exit status %d", cmd.CommandPath(), status)
		}
		if status := run(append([]string{"help"}, path...), &other, &other); status != exitOK || help.String() != other.String() {
			t.Errorf("%s: exit status %d, help is\n%s\nand\n%s", cmd.CommandPath(), status, &help, &other)
		}
		for line := range strings.Lines(help.String()) {
			if n := runewidth.StringWidth(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Example == "" && cmd.Parent().Example == "" && cmd.Name() != "help" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
	})
}

// TestExamples runs the examples of the help as they would be pasted into a shell.
// Those that need root or a server only have their flags looked at.
func TestExamples(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	dir := t.TempDir()
	program := drilled(t)
	odd, err := os.ReadFile(oddCapture)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "captures"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"capture.pcap": string(odd), "monday.pcapng.zst": string(odd), "captures/a.pcap": string(odd), "sslkeys.log": "# no secrets yet\n",
		"oddcert.yaml": "name: span-1\n", "tcpdump": "#!/bin/sh\nexec cat capture.pcap\n", "sudo": "#!/bin/sh\nexit 0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := exec.Command(program, "replay", "--json", "-", oddCapture).Output()
	if err != nil {
		t.Fatal(err)
	}
	alert := regexp.MustCompile(`(?m)^.*"kind":"alert".*$`).Find(lines)
	if err := os.WriteFile(filepath.Join(dir, "alert.json"), alert, 0o600); err != nil {
		t.Fatal(err)
	}
	allCommands(rootCommand(), func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			if line, _, _ = strings.Cut(strings.TrimSpace(line), "    "); line == "" {
				continue
			}
			if strings.HasPrefix(line, "sudo ") || strings.HasPrefix(line, "oddcert es ") || strings.Contains(line, "/etc/") || strings.Contains(line, "/var/") || strings.Contains(line, "fpath") || strings.Contains(line, "~") {
				at := strings.Index(line, "oddcert ")
				found, rest, err := rootCommand().Find(strings.Fields(line[at:])[1:])
				if err == nil {
					err = found.ParseFlags(strings.Fields(strings.NewReplacer("'", "", "not port 22", "x").Replace(strings.Join(rest, " "))))
				}
				if err != nil || !found.Runnable() {
					t.Errorf("%s: %v", line, err)
				}
				continue
			}
			sh := exec.Command(bash, "-c", "set -o pipefail; "+line)
			sh.Dir = dir
			sh.Env = append(os.Environ(), "PATH="+dir+":"+filepath.Dir(program)+":"+os.Getenv("PATH"))
			if out, err := sh.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
	})
}

// TestReadme holds that the session at the top of README.md is what the program
// shows.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if status := run([]string{"replay", "--oneline=false", oddCapture}, &out, &out); status != exitOK {
		t.Fatalf("exit status %d: %s", status, &out)
	}
	if !bytes.Contains(readme, out.Bytes()) {
		t.Errorf("README.md does not have\n%s", &out)
	}
}
