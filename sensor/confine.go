package main

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/sandbox"
)

// policy is what a live sensor still does when it listens: read again what it was
// configured with, write records, and reach the outputs.
// spool is the folder of the spool, and inventory the file of the inventory; empty for
// none.
func (c *config) policy(spool, inventory string) sandbox.Policy {
	var p sandbox.Policy
	for _, o := range c.table() {
		if o.name == "evidence-key" || o.on&(onReplay|onLive) == 0 { // it was read, or nobody reads it
			continue
		}
		if o.value.kind == kindFile || o.value.kind == kindDir {
			p.Read = append(p.Read, o.parts...)
		}
	}
	if c.JSON != "" && c.JSON != "-" {
		p.Write = append(p.Write, c.JSON)
	}
	if inventory != "" { // with what is beside it
		p.Write = append(p.Write, filepath.Dir(inventory))
	}
	if c.Evidence != "" {
		p.Write = append(p.Write, c.Evidence)
	}
	if spool != "" {
		p.Write = append(p.Write, spool)
	}
	to, _ := c.Elasticsearch.URLs() // they were checked
	for _, o := range c.Outputs {
		p.Read = append(p.Read, o.files(func(s *setting) bool { return s.secret || s.value.kind == kindFile })...)
		to = append(to, o.urls()...)
		switch o.Type {
		case "file":
			p.Write = append(p.Write, o.File.Path)
		case "kafka": // the brokers say which ports they have
			p.AnyPort, p.Resolve = true, true
		}
	}
	for _, u := range to {
		switch u.Scheme {
		case "unix":
			p.Unix = true
			continue
		case "udp":
			p.UDP = true
		case "http", "https":
			if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
				u = proxy
			}
		}
		p.Resolve = p.Resolve || net.ParseIP(u.Hostname()) == nil
		if port, err := strconv.ParseUint(portOf(u), 10, 16); err == nil && u.Scheme != "udp" {
			p.Ports = append(p.Ports, uint16(port))
		}
	}
	slices.Sort(p.Ports)
	p.Ports = slices.Compact(p.Ports)
	return p
}

// urls are where an output delivers to. What is wrong with one the output says itself.
func (o *outputConfig) urls() (all []*url.URL) {
	address := ""
	switch o.Type {
	case "elasticsearch":
		all, _ = o.Elasticsearch.URLs()
		return all
	case "syslog":
		if u, err := o.Syslog.Address(); err == nil {
			all = append(all, u)
		}
		return all
	case "webhook":
		if address = o.Webhook.URL; o.Webhook.URLFile != "" {
			text, _ := os.ReadFile(o.Webhook.URLFile)
			address = strings.TrimSpace(string(text))
		}
	case "splunk":
		address = o.Splunk.URL
	case "otlp":
		address = o.OTLP.URL
	}
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		all = append(all, u)
	}
	return all
}

// portOf is the port of an address, as it says or as its scheme has it.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
}
