package main

import (
	"fmt"
	"os"
)

// careless says where secrets are not kept as such.
func (c *config) careless(warn func(error)) {
	e := &c.Elasticsearch
	for _, path := range append([]string{e.PasswordFile, e.APIKeyFile, e.ServiceTokenFile}, c.Keys...) {
		// What is not there, or no file, is somebody else's to complain of.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o004 != 0 {
			warn(fmt.Errorf("%s: everybody on this machine may read this secret: chmod o-r", path))
		}
	}
	for _, address := range e.Plain() {
		warn(fmt.Errorf("elasticsearch: %s: the credentials go over plain HTTP: everybody on the way may read them", address))
	}
}
