package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// careless says which secrets others can read.
func (c *config) careless(warn func(error)) {
	e := &c.Elasticsearch
	readable(append([]string{e.PasswordFile, e.APIKeyFile, e.ServiceTokenFile, e.TLS.KeyFile}, c.Keys...), warn)
	for _, address := range e.Plain() {
		warn(fmt.Errorf("es: %s: the credentials go over plain HTTP: everybody on the way can read them", address))
	}
	for _, o := range c.Outputs {
		o.careless(warn)
	}
}

// careless says which secrets of an output others can read.
func (o *outputConfig) careless(warn func(error)) {
	var files []string
	for _, g := range o.given {
		s := o.find(g.key, o.Type)
		if s == nil || !s.secret {
			continue
		}
		for _, p := range g.parts {
			if s.value.kind == kindPairs {
				_, p, _ = strings.Cut(p, "=")
			}
			files = append(files, p)
		}
	}
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

// readable says which files everybody may read.
func readable(files []string, warn func(error)) {
	for _, path := range files {
		// Whoever reads the file complains when it is missing.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o004 != 0 {
			warn(fmt.Errorf("%s: everybody on this machine may read this secret: chmod o-r", path))
		}
	}
}
