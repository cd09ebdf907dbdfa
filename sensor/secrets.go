package main

import (
	"fmt"
	"os"
)

// careless says which secrets others can read.
func (c *config) careless(warn func(error)) {
	e := &c.Elasticsearch
	for _, path := range append([]string{e.PasswordFile, e.APIKeyFile, e.ServiceTokenFile}, c.Keys...) {
		// Whoever reads the file complains when it is missing.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o004 != 0 {
			warn(fmt.Errorf("%s: everybody on this machine may read this secret: chmod o-r", path))
		}
	}
	for _, address := range e.Plain() {
		warn(fmt.Errorf("es: %s: the credentials go over plain HTTP: everybody on the way can read them", address))
	}
}
