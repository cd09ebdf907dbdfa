package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The rights of what can be read and of what can be changed. Execution is in neither,
// nor are devices, sockets, pipes and links, nor moves from one folder to another.
const (
	readFile    landlock.AccessFSSet = ll.AccessFSReadFile
	readFolder                       = readFile | ll.AccessFSReadDir
	writeFile                        = readFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
	writeFolder                      = readFolder | writeFile | ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
)

// shared are folders of the whole system. They are not granted for the sake of one
// file.
var shared = []string{"/", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var"}

// resolverFiles are what package net reads to look up a name. /etc/services is read for
// ports with a name.
var resolverFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"}

// granted is a path and what it is granted for.
type granted struct {
	path   string
	access landlock.AccessFSSet
}

// grants returns what p names, and writes it into r.
func (p *Policy) grants(r *Report) ([]granted, error) {
	g := granter{report: r}
	for _, path := range p.Write {
		if err := g.add(path, true); err != nil {
			return nil, err
		}
	}
	for _, path := range p.Read {
		if err := g.add(path, false); err != nil {
			return nil, err
		}
	}
	if p.Resolve {
		g.addResolver()
	}
	g.addSelf()
	return g.all, nil
}

type granter struct {
	report *Report
	all    []granted
}

// add grants a path that the policy names.
func (g *granter) add(path string, write bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		g.grant(path, write, info.IsDir()) // a folder, or what is never replaced
		return nil
	}
	exists := err == nil
	folders := []string{filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		folders = append(folders, filepath.Dir(real))
	}
	for _, folder := range folders {
		if slices.Contains(shared, folder) {
			if !exists {
				return fmt.Errorf("confine: %s is missing, and %s belongs to the whole system: use a folder of its own", path, folder)
			}
			g.grant(path, write, false)
			continue
		}
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return fmt.Errorf("confine: %s is missing, and so is its folder", path)
		}
		g.grant(folder, write, true)
	}
	return nil
}

// addResolver grants the files of the resolver. That of the servers is replaced when
// addresses change, and package net reads it again. All of /etc has to be readable for
// that where it is a plain file. Root does not get it, who could read there what others
// cannot.
func (g *granter) addResolver() {
	for _, path := range resolverFiles {
		_ = g.add(path, false) // what is missing is not read
	}
	link, err := os.Lstat("/etc/resolv.conf")
	switch {
	case err == nil && link.Mode()&fs.ModeSymlink != 0:
	case isRoot():
		g.report.Lacks = append(g.report.Lacks, "/etc/resolv.conf: other name servers are not seen before the next start (run it as another user than root)")
	default:
		g.grant("/etc", false, true)
	}
}

// grant notes a path that is there.
func (g *granter) grant(path string, write, folder bool) {
	list, access := &g.report.Read, readFile
	switch {
	case write && folder:
		list, access = &g.report.Write, writeFolder
	case write:
		list, access = &g.report.Write, writeFile
	case folder:
		access = readFolder
	}
	if !slices.Contains(*list, path) {
		*list = append(*list, path)
		g.all = append(g.all, granted{path, access})
	}
}

// addSelf grants what the process can read about itself, and how long the machine runs.
// Landlock knows a file by its inode. That of one in /proc is another when the kernel
// was short of memory, unless a descriptor is open, which is therefore never closed.
func (g *granter) addSelf() {
	for path, folder := range map[string]bool{"/proc/self": true, "/proc/stat": false} {
		_, _ = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		g.grant(path, false, folder)
	}
}

// versions are what the versions of Landlock's ABI restrict. Later ones restrict more,
// which the rules here do not know of.
var versions = []landlock.Config{1: landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6, landlock.V7}

// The versions that brought what is not about paths.
const (
	abiPorts  = 4
	abiScopes = 6
)

// landlockLacks are what older versions do not restrict.
var landlockLacks = []struct {
	abi   int // the first that does
	lacks string
}{
	{3, "the truncation of files is not restricted (Linux 6.2)"},
	{abiPorts, "the ports of TCP are not restricted (Linux 6.7)"},
	{5, "the control of devices is not restricted (Linux 6.10)"},
	{abiScopes, "signals to other processes and abstract sockets are not restricted (Linux 6.12)"},
}

// landlockABI is the version of the kernel's Landlock.
func landlockABI() (int, error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0, err
	}
	// Threads of one process could not signal each other, which the Go runtime does
	// (erratum 2 of Documentation/userspace-api/landlock.rst).
	if errata, err := ll.LandlockGetErrata(); abi >= abiScopes && (err != nil || errata&2 == 0) {
		abi = abiScopes - 1
	}
	return abi, nil
}

// restrict has Landlock allow every thread only what is granted, and connections to
// ports of TCP, or to any.
func (r *Report) restrict(paths []granted, ports []uint16, anyPort bool) {
	abi, err := kernel.landlockABI()
	abi = min(abi, len(versions)-1)
	if err == nil && abi > 0 {
		config := versions[abi]
		var rules []landlock.Rule
		for _, g := range paths {
			// It may go at any time. Then there is nothing to grant.
			rules = append(rules, landlock.PathAccess(g.access&config.HandledAccessFS, g.path).IgnoreIfMissing())
		}
		if anyPort {
			config.HandledAccessNet &^= ll.AccessNetConnectTCP
		} else if abi >= abiPorts {
			for _, port := range ports {
				rules = append(rules, landlock.ConnectTCP(port))
			}
		}
		err = config.Restrict(rules...)
	}
	if err != nil || abi <= 0 {
		text := "Landlock: files, ports and signals are not restricted (Linux 5.13)"
		if err != nil {
			text += ": " + err.Error()
		}
		if isRoot() {
			text += "; the files of root can be changed: run it as another user"
		}
		r.Lacks = append(r.Lacks, text)
		return
	}
	r.Landlock = abi
	for _, l := range landlockLacks {
		if abi < l.abi {
			r.Lacks = append(r.Lacks, "Landlock: "+l.lacks)
		}
	}
}
