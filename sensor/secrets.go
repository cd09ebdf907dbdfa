package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// careless says which secrets others can read, in which places others can write what the
// program goes by, and that the spool is not on a disk of this machine.
func (c *config) careless(warn func(error)) {
	e := &c.Elasticsearch
	readable(append([]string{e.PasswordFile, e.APIKeyFile, e.ServiceTokenFile, e.TLS.KeyFile, c.Access.Token, c.Access.Key}, c.Keys...), warn)
	for _, address := range e.Plain() {
		warn(fmt.Errorf("es: %s: the credentials go over plain HTTP: everybody on the way can read them", address))
	}
	for _, o := range c.Outputs {
		o.careless(warn)
	}
	c.writable(warn)
	c.remoteSpool(warn)
}

// careless says which secrets of an output others can read.
func (o *outputConfig) careless(warn func(error)) {
	files := o.files(func(s *setting) bool { return s.secret })
	readable(files, warn)
	if len(files) == 0 {
		return
	}
	for _, g := range o.given {
		if g.key != "url" {
			continue
		}
		for _, address := range g.parts {
			if endpoint.IsPlain(address) {
				warn(fmt.Errorf("output %s: %s: the credentials are not encrypted: everybody on the way can read them", o.name, address))
			}
		}
	}
}

// files are those that some settings of an output name.
func (o *outputConfig) files(some func(*setting) bool) (files []string) {
	for _, g := range o.given {
		s := o.find(g.key, o.Type)
		if s == nil || !some(s) {
			continue
		}
		for _, p := range g.parts {
			if s.value.kind == kindPairs {
				_, p, _ = strings.Cut(p, "=")
			}
			files = append(files, p)
		}
	}
	return files
}

// isUDP reports whether an address is one that nobody answers from.
func isUDP(address string) bool { return strings.HasPrefix(address, "udp:") }

// readable says which files everybody may read.
func readable(files []string, warn func(error)) {
	for _, path := range files {
		// Whoever reads the file complains when it is missing.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o004 != 0 {
			warn(fmt.Errorf("%s: everybody on this machine may read this secret: chmod o-r", path))
		}
	}
}
