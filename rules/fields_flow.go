package rules

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// flowFields are the fields that speak of the handshake or its flow.
var flowFields = slices.Concat(
	endpointFields("client", "the client, known from the hellos", client),
	endpointFields("server", "the server, known from the hellos", server),
	endpointFields("source", "the client, as in ECS", client),
	endpointFields("destination", "the server, as in ECS", server),
	[]field{
		{
			name: "network.transport", weight: 1000,
			doc: "`tcp`, `udp`, `sctp` or `eapol`",
			get: ofFlow(func(dst []value, f *event.Flow) []value { return addText(dst, f.Transport.String()) }),
		},
		{
			name: "network.type", weight: 1000,
			doc: "`ipv4` or `ipv6`",
			get: ofFlow(func(dst []value, f *event.Flow) []value {
				switch a := f.Endpoints[0].Addr.Unmap(); {
				case a.Is4():
					dst = append(dst, value{s: "ipv4"})
				case a.Is6():
					dst = append(dst, value{s: "ipv6"})
				}
				return dst
			}),
		},
		{
			name: "network.vlan.id", kind: number, weight: 500,
			doc: "outer VLAN identifier",
			get: vlan(0),
		},
		{
			name: "network.inner.vlan.id", kind: number, weight: 500,
			doc: "inner VLAN identifier",
			get: vlan(1),
		},
		{
			name: "observer.ingress.interface.name", weight: 1000,
			doc: "interface of the capture",
			get: ofOrigin(func(o *event.Origin) string { return o.Interface }),
		},
		{
			name: "log.file.path", weight: 1000,
			doc: "capture file, in a replay",
			get: ofOrigin(func(o *event.Origin) string { return o.Path }),
		},
		{
			name: "oddcert.tunnel", weight: 500,
			doc: "tunnels that the packets came through, outermost first",
			get: ofFlow(func(dst []value, f *event.Flow) []value { return addTexts(dst, f.Tunnel) }),
		},
		{
			name: "oddcert.carrier", weight: 1000,
			doc: "what carries the TLS: `tls`, `dtls`, `starttls-smtp`, …",
			get: ofHandshake(func(h *event.Handshake) string { return h.Carrier }),
		},
		{
			name: "oddcert.certificates", weight: 1000,
			doc: "what became of the server's certificate: `extracted`, `encrypted`, `resumed`, `none` or `lost`",
			get: ofHandshake(func(h *event.Handshake) string { return h.Outcome.String() }),
		},
		{
			name: "oddcert.loss", weight: 1000,
			doc: "why the certificate is `lost`: `gap`, `evicted`, `malformed`, `limit` or `end-of-input`",
			get: ofHandshake(func(h *event.Handshake) string { return h.Loss.String() }),
		},
		{
			name: "oddcert.forged", weight: 1000,
			doc: "what was wrong with packets of the flow that an endpoint ignores: " +
				"`fin`, `rst`, `syn`, `data`, `checksum`, `ack`, `timestamp` or `conflict`",
			get: textsOfHandshake(func(h *event.Handshake) []string { return h.Forged.Names() }),
		},
		{
			name: "oddcert.alternative", kind: boolean, weight: 1000,
			doc: "whether this is the reading of the later copy, where bytes came twice with different content",
			get: flagOfHandshake(func(h *event.Handshake) bool { return h.Alternative }),
		},
		{
			name: "oddcert.authority_names", weight: 100,
			doc: "authorities whose certificates the server accepts from clients",
			get: textsOfHandshake(func(h *event.Handshake) []string { return h.AuthorityNames }),
		},
		{
			name: "oddcert.raw_key.sha256", kind: digest, size: 32, weight: 1,
			doc: "SHA-256 of the SubjectPublicKeyInfo that was sent instead of the server's certificate",
			get: rawKey(func(h *event.Handshake) *[32]byte { return &h.RawKey }),
		},
		{
			name: "oddcert.client_raw_key.sha256", kind: digest, size: 32, weight: 1,
			doc: "SHA-256 of the SubjectPublicKeyInfo that was sent instead of the client's certificate",
			get: rawKey(func(h *event.Handshake) *[32]byte { return &h.ClientRawKey }),
		},
		{
			name: "oddcert.ja4", weight: 30,
			doc: "JA4 of the client",
			get: ofClientHello(func(c *event.ClientHello) string { return c.JA4 }),
		},
		{
			name: "tls.version", weight: 1000,
			doc: "number of the version: `1.2`",
			get: ofHandshake(func(h *event.Handshake) string { _, number := tls.VersionName(h.Version); return number }),
		},
		{
			name: "tls.version_protocol", weight: 1000,
			doc: "`ssl`, `tls`, `dtls` or `tlcp`",
			get: ofHandshake(func(h *event.Handshake) string { protocol, _ := tls.VersionName(h.Version); return protocol }),
		},
		{
			name: "tls.cipher", kind: suite, weight: 500,
			doc: "name of the cipher suite, or its number as `0x1301`",
			get: codePointOfHandshake(func(h *event.Handshake) uint16 { return h.CipherSuite }),
		},
		{
			name: "tls.curve", kind: group, weight: 500,
			doc: "name of the group of the key exchange, or its number as `0x001d`",
			get: codePointOfHandshake(func(h *event.Handshake) uint16 { return h.Curve }),
		},
		{
			name: "tls.next_protocol", weight: 500,
			doc: "ALPN protocol that the server chose",
			get: ofServerHello(func(s *event.ServerHello) string { return s.ALPN }),
		},
		{
			name: "tls.established", kind: boolean, weight: 1000,
			doc: "whether both sides sent encrypted data after the handshake",
			get: flagOfHandshake(func(h *event.Handshake) bool { return h.Established }),
		},
		{
			name: "tls.resumed", kind: boolean, weight: 1000,
			doc: "whether the session was resumed",
			get: flagOfHandshake(func(h *event.Handshake) bool { return h.Resumed }),
		},
		{
			name: "tls.client.server_name", weight: 10,
			doc: "name that the client asked for (SNI)",
			get: ofClientHello(func(c *event.ClientHello) string { return c.ServerName }),
		},
		{
			name: "tls.client.ja3", kind: digest, size: 16, weight: 30,
			doc: "JA3 of the client",
			get: ofClientHello(func(c *event.ClientHello) string { return c.JA3 }),
		},
		{
			name: "tls.client.supported_ciphers", kind: suite, weight: 1000,
			doc: "names of the cipher suites that the client offered",
			get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
				if h.ClientHello != nil {
					for _, s := range h.ClientHello.CipherSuites {
						dst = append(dst, value{n: int64(s)})
					}
				}
				return dst
			},
		},
		{
			name: "tls.server.ja3s", kind: digest, size: 16, weight: 30,
			doc: "JA3S of the server",
			get: ofServerHello(func(s *event.ServerHello) string { return s.JA3S }),
		},
	},
)

func client(h *event.Handshake) event.Direction { return h.Client }
func server(h *event.Handshake) event.Direction { return h.Client.Other() }

// endpointFields makes the fields of the endpoint that sends in a direction.
func endpointFields(name, doc string, sender func(*event.Handshake) event.Direction) []field {
	of := func(get func([]value, event.Transport, *event.Endpoint) []value) getter {
		return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.Flow == nil {
				return dst
			}
			return get(dst, h.Flow.Transport, &h.Flow.Endpoints[sender(h)])
		}
	}
	return []field{
		{
			name: name + ".ip", kind: address, weight: 20,
			doc: "address of " + doc,
			get: of(func(dst []value, _ event.Transport, e *event.Endpoint) []value {
				if e.Addr.IsValid() {
					dst = append(dst, value{ip: e.Addr.Unmap().WithZone("")})
				}
				return dst
			}),
		},
		{
			name: name + ".port", kind: number, weight: 500,
			doc: "port of " + doc,
			get: of(func(dst []value, t event.Transport, e *event.Endpoint) []value {
				if t != event.EAPOL {
					dst = append(dst, value{n: int64(e.Port)})
				}
				return dst
			}),
		},
		{
			name: name + ".mac", kind: mac, size: 6, weight: 100,
			doc: "MAC address of " + doc,
			get: of(func(dst []value, _ event.Transport, e *event.Endpoint) []value {
				if e.MAC != [6]byte{} {
					dst = append(dst, value{raw: e.MAC[:]})
				}
				return dst
			}),
		},
	}
}

// The functions below make getters. An empty text is not a value.

func ofHandshake(of func(*event.Handshake) string) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value { return addText(dst, of(h)) }
}

func textsOfHandshake(of func(*event.Handshake) []string) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value { return addTexts(dst, of(h)) }
}

func flagOfHandshake(of func(*event.Handshake) bool) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value { return addFlag(dst, of(h)) }
}

// codePointOfHandshake makes the getter of a suite or group; 0 is not a value.
func codePointOfHandshake(of func(*event.Handshake) uint16) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		return addPositive(dst, int(of(h)))
	}
}

func ofFlow(get func([]value, *event.Flow) []value) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		if h.Flow == nil {
			return dst
		}
		return get(dst, h.Flow)
	}
}

func ofOrigin(of func(*event.Origin) string) getter {
	return ofFlow(func(dst []value, f *event.Flow) []value {
		if f.Origin == nil {
			return dst
		}
		return addText(dst, of(f.Origin))
	})
}

// vlan makes the getter of the outer (0) or inner (1) VLAN identifier.
func vlan(i uint8) getter {
	return ofFlow(func(dst []value, f *event.Flow) []value {
		if f.VLANCount <= i {
			return dst
		}
		return append(dst, value{n: int64(f.VLANs[i])})
	})
}

func ofClientHello(of func(*event.ClientHello) string) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		if h.ClientHello == nil {
			return dst
		}
		return addText(dst, of(h.ClientHello))
	}
}

func ofServerHello(of func(*event.ServerHello) string) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		if h.ServerHello == nil {
			return dst
		}
		return addText(dst, of(h.ServerHello))
	}
}

// rawKey makes the getter of the hash of a raw public key; all zero means that no
// such key was sent.
func rawKey(of func(*event.Handshake) *[32]byte) getter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		key := of(h)
		if *key == [32]byte{} {
			return dst
		}
		return append(dst, value{raw: key[:]})
	}
}
