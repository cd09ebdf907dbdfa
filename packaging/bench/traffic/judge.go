package traffic

// judge says what a sensor can have seen of a flow that is over.
func (f *flow) judge() Connection {
	c := f.conv
	conn := Connection{Client: f.client, Server: f.server, VLANs: f.vlans, Kind: c.kind, Version: c.version,
		SNI: c.sni, Start: f.first, Faults: f.faults}
	for dir := range c.certs {
		var shown []Shown
		for _, p := range c.certs[dir] {
			shown = append(shown, Shown{p.certificate, f.visible(uint8(dir), p.span), f.whole(uint8(dir), p.span)})
		}
		if dir == toClient {
			conn.Chain = shown
		} else {
			conn.ClientChain = shown
		}
	}
	conn.Outcomes = f.outcomes(conn.Chain)
	return conn
}

// outcomes are the right ones: the one that is certain, or all that a sensor
// can come to in good faith from what was captured.
func (f *flow) outcomes(chain []Shown) []string {
	c := f.conv
	started := f.whole(toServer, c.clientHello)
	settled := c.decisive.hi > 0 && f.whole(toClient, c.decisive)
	right, unsure := "lost", []string{"lost"}
	switch {
	case len(chain) > 0:
		if chain[0].Whole {
			return []string{"extracted"}
		}
		if chain[0].Visible {
			return []string{"extracted", "lost", ""}
		}
	case c.kind == Unanswered:
	case c.kind == Refused:
		right, settled = "none", settled && started
	case c.kind == TLS12Resumed:
		right = "resumed"
	case c.kind == TLS13Resumed:
		right, unsure = "resumed", []string{"lost", "encrypted"}
	default:
		right = "encrypted"
	}
	switch {
	case settled && len(chain) == 0, started && right == "lost":
		return []string{right}
	case right != "lost":
		unsure = append([]string{right}, unsure...)
	}
	if !started && !settled {
		unsure = append(unsure, "")
	}
	return unsure
}

// visible reports whether all of x was captured.
func (f *flow) visible(dir uint8, x span) bool { return f.seen[dir].contains(x) }

// whole reports whether the stream was captured up to the end of x, so that
// its start was known.
func (f *flow) whole(dir uint8, x span) bool {
	return f.known[dir] && f.seen[dir].contains(span{0, x.hi})
}

// speaksTLS reports whether there is something of TLS to find on a flow.
func (c *conversation) speaksTLS() bool { return c.clientHello != span{} }
