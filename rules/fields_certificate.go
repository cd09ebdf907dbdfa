package rules

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// leafFields are the fields of a certificate that ECS has for a leaf too, below
// tls.server and tls.client. Their names follow a prefix.
var leafFields = slices.Concat(
	nameFields("subject", func(c *cert.Certificate) *cert.Name { return &c.Subject }),
	nameFields("issuer", func(c *cert.Certificate) *cert.Name { return &c.Issuer }),
	[]field{
		{
			name: "hash.md5", kind: digest, size: 16, weight: 1,
			doc: "MD5 of the DER",
			get: hashOf(func(c *cert.Certificate) []byte { return c.MD5[:] }),
		},
		{
			name: "hash.sha1", kind: digest, size: 20, weight: 1,
			doc: "SHA-1 of the DER",
			get: hashOf(func(c *cert.Certificate) []byte { return c.SHA1[:] }),
		},
		{
			name: "hash.sha256", kind: digest, size: 32, weight: 1,
			doc: "SHA-256 of the DER",
			get: hashOf(func(c *cert.Certificate) []byte { return c.SHA256[:] }),
		},
		{
			name: "not_before", kind: instant, weight: 50,
			doc: "start of the validity",
			get: dateOf(func(c *cert.Certificate) cert.Date { return c.NotBefore }),
		},
		{
			name: "not_after", kind: instant, weight: 50,
			doc: "end of the validity",
			get: dateOf(func(c *cert.Certificate) cert.Date { return c.NotAfter }),
		},
		{
			name: "x509.not_before", kind: instant, weight: 50,
			doc: "start of the validity",
			get: dateOf(func(c *cert.Certificate) cert.Date { return c.NotBefore }),
		},
		{
			name: "x509.not_after", kind: instant, weight: 50,
			doc: "end of the validity",
			get: dateOf(func(c *cert.Certificate) cert.Date { return c.NotAfter }),
		},
		{
			name: "x509.serial_number", kind: serial, weight: 1,
			doc: "serial number",
			get: textOf(func(c *cert.Certificate) string { return c.Serial }),
		},
		{
			name: "x509.alternative_names", weight: 10,
			doc:   "subjectAltName: DNS names, addresses, e-mail addresses, URIs",
			names: []cert.NameKind{cert.DNSName, cert.IPAddress, cert.EmailAddress, cert.URI},
			get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
				dst = addTexts(addTexts(dst, c.DNSNames), c.IPAddresses)
				return addTexts(addTexts(dst, c.EmailAddresses), c.URIs)
			}),
		},
		{
			name: "x509.public_key_algorithm", weight: 1000,
			doc: "algorithm of the key: `RSA`, `ECDSA`, `Ed25519`, `ML-DSA-65`, `SM2`, …",
			get: textOf(func(c *cert.Certificate) string { return c.PublicKeyAlgorithm }),
		},
		{
			name: "x509.public_key_size", kind: number, weight: 500,
			doc: "bits of the key: of the modulus (RSA) or a coordinate (elliptic curves), else of the whole key",
			get: positiveOf(func(c *cert.Certificate) int { return c.PublicKeySize }),
		},
		{
			name: "x509.public_key_curve", weight: 500,
			doc: "curve of the key: `P-256`, `brainpoolP256r1`, …",
			get: textOf(func(c *cert.Certificate) string { return c.PublicKeyCurve }),
		},
		{
			name: "x509.public_key_exponent", kind: number, weight: 1000,
			doc: "public exponent of an RSA key",
			get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
				if c.PublicKeyExponent == 0 || c.PublicKeyExponent > 1<<63-1 {
					return dst
				}
				return append(dst, value{n: int64(c.PublicKeyExponent)})
			}),
		},
		{
			name: "x509.signature_algorithm", weight: 500,
			doc: "algorithm of the signature, in Go's names (`SHA256-RSA`, `MD5-RSA`, …) or its standard's (`ML-DSA-65`, `SM2-SM3`, …)",
			get: textOf(func(c *cert.Certificate) string { return c.SignatureAlgorithm }),
		},
		{
			name: "x509.version_number", kind: number, weight: 1000,
			doc: "X.509 version, 1 to 3",
			get: positiveOf(func(c *cert.Certificate) int { return c.Version }),
		},
	},
)

// chainFields are the fields of a certificate that ECS does not have.
var chainFields = []field{
	{
		name: "name", weight: 10,
		doc:   "names of the server that it is for: common names of the subject, DNS names and addresses of the subjectAltName",
		names: []cert.NameKind{cert.CommonName, cert.DNSName, cert.IPAddress},
		get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
			return addTexts(addTexts(addTexts(dst, c.Subject.CommonName), c.DNSNames), c.IPAddresses)
		}),
	},
	{
		name: "x509.alternative_names_count", kind: number, weight: 500,
		doc: "number of names in the subjectAltName; records have the first of them",
		get: positiveOf(func(c *cert.Certificate) int { return c.AltNames }),
	},
	{
		name: "serial_number", kind: serial, weight: 1,
		doc: "serial number",
		get: textOf(func(c *cert.Certificate) string { return c.Serial }),
	},
	{
		name: "serial_padded", kind: boolean, weight: 1000,
		doc: "whether the serial number has more octets than DER allows",
		get: flagOf(func(c *cert.Certificate) bool { return c.SerialPadded }),
	},
	{
		name: "spki.sha256", kind: digest, size: 32, weight: 1,
		doc: "SHA-256 of the SubjectPublicKeyInfo",
		get: hashOf(func(c *cert.Certificate) []byte { return c.SPKISHA256[:] }),
	},
	{
		name: "tbs.sha256", kind: digest, size: 32, weight: 1,
		doc: "SHA-256 of the TBSCertificate",
		get: hashOf(func(c *cert.Certificate) []byte { return c.TBSSHA256[:] }),
	},
	{
		name: "signature_bits", kind: number, weight: 500,
		doc: "bits of the signature: for RSA, the size of the issuer's key",
		get: positiveOf(func(c *cert.Certificate) int { return c.SignatureBits }),
	},
	{
		name: "self_signed", kind: boolean, weight: 1000,
		doc: "whether issuer and subject are the same, byte for byte",
		get: flagOf(func(c *cert.Certificate) bool { return c.SelfSigned }),
	},
	{
		name: "is_ca", kind: boolean, weight: 1000,
		doc: "whether basicConstraints makes an authority",
		get: flagOf(func(c *cert.Certificate) bool { return c.IsCA }),
	},
	{
		name: "path_len", kind: number, weight: 500,
		doc: "pathLenConstraint: how many authorities may follow below",
		get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
			if !c.BasicConstraints || c.PathLen < 0 {
				return dst
			}
			return append(dst, value{n: int64(c.PathLen)})
		}),
	},
	{
		name: "key_usage", weight: 1000,
		doc: "RFC 5280's names of the usages: `digitalSignature`, `keyCertSign`, …",
		get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
			for name := range c.KeyUsage.Names {
				dst = append(dst, value{s: name})
			}
			return dst
		}),
	},
	{
		name: "extended_key_usage", weight: 1000,
		doc: "RFC 5280's names of the purposes: `serverAuth`, …, or object identifiers",
		get: textsOf(func(c *cert.Certificate) []string { return c.ExtendedKeyUsage }),
	},
	{
		name: "policies", weight: 100,
		doc: "object identifiers of certificatePolicies",
		get: textsOf(func(c *cert.Certificate) []string { return c.Policies }),
	},
	{
		name: "name_constraints.permitted", weight: 50,
		doc: "names, networks (`10.0.0.0/8`) and distinguished names that nameConstraints permits",
		get: textsOf(func(c *cert.Certificate) []string { return c.Permitted }),
	},
	{
		name: "name_constraints.excluded", weight: 50,
		doc: "names, networks and distinguished names that nameConstraints excludes",
		get: textsOf(func(c *cert.Certificate) []string { return c.Excluded }),
	},
	{
		name: "subject_key_id", kind: digest, weight: 5,
		doc: "subjectKeyIdentifier",
		get: bytesOf(func(c *cert.Certificate) []byte { return c.SubjectKeyID }),
	},
	{
		name: "authority_key_id", kind: digest, weight: 10,
		doc: "keyIdentifier of authorityKeyIdentifier",
		get: bytesOf(func(c *cert.Certificate) []byte { return c.AuthorityKeyID }),
	},
	{
		name: "sct.count", kind: number, weight: 1000,
		doc: "number of signed certificate timestamps in the certificate",
		get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
			if c.Version == 0 {
				return dst
			}
			return append(dst, value{n: int64(c.SCTs)})
		}),
	},
	{
		name: "parse_error", weight: 100,
		doc: "what could not be read",
		get: textOf(func(c *cert.Certificate) string { return c.ParseError }),
	},
	{
		name: "validity.days", kind: number, weight: 500, ofEntry: true,
		doc: "whole days from start to end of the validity",
		get: ofCertificate(func(dst []value, c *cert.Certificate) []value {
			if !c.NotBefore.IsValid() || !c.NotAfter.IsValid() {
				return dst
			}
			return append(dst, value{n: c.NotAfter.DaysSince(c.NotBefore)})
		}),
	},
	{
		name: "validity.days_left", kind: number, weight: 500, ofEntry: true,
		doc: "whole days from the handshake to the end of the validity (less than 0 after it)",
		get: validityOf(func(dst []value, c *cert.Certificate, now int64) []value {
			if !c.NotAfter.IsValid() {
				return dst
			}
			return append(dst, value{n: c.NotAfter.DaysLeft(now)})
		}),
	},
	{
		name: "validity.expired", kind: boolean, weight: 1000, ofEntry: true,
		doc: "whether the handshake was after the end of the validity",
		get: validityOf(func(dst []value, c *cert.Certificate, now int64) []value {
			if !c.NotAfter.IsValid() {
				return dst
			}
			return addFlag(dst, c.NotAfter.Passed(now))
		}),
	},
	{
		name: "validity.not_yet_valid", kind: boolean, weight: 1000, ofEntry: true,
		doc: "whether the handshake was before the start of the validity",
		get: validityOf(func(dst []value, c *cert.Certificate, now int64) []value {
			if !c.NotBefore.IsValid() {
				return dst
			}
			return addFlag(dst, c.NotBefore.Ahead(now))
		}),
	},
	{
		name: "position", kind: number, weight: 100, ofEntry: true,
		doc: "0-based place in the chain",
		get: func(dst []value, h *event.Handshake, c *event.ChainEntry) []value {
			for _, chain := range [2][]event.ChainEntry{h.Chain, h.ClientChain} {
				for i := range chain {
					if &chain[i] == c {
						return append(dst, value{n: int64(i)})
					}
				}
			}
			return dst
		},
	},
	{
		name: "truncated", kind: boolean, weight: 1000, ofEntry: true,
		doc: "whether bytes of it are missing",
		get: func(dst []value, _ *event.Handshake, c *event.ChainEntry) []value { return addFlag(dst, c.Truncated) },
	},
}

// nameFields makes the fields of a distinguished name: the subject or the issuer.
func nameFields(which string, of func(*cert.Certificate) *cert.Name) []field {
	attribute := func(name, doc string, weight int, get func(*cert.Name) []string) field {
		return field{
			name: "x509." + which + "." + name, weight: weight,
			doc: doc + " in the " + which,
			get: textsOf(func(c *cert.Certificate) []string { return get(of(c)) }),
		}
	}
	whole := textOf(func(c *cert.Certificate) string { return of(c).String })
	commonName := attribute("common_name", "common names", 20, func(n *cert.Name) []string { return n.CommonName })
	if which == "subject" {
		commonName.names = []cert.NameKind{cert.CommonName}
	}
	return []field{
		{name: which, weight: 20, doc: "whole " + which, get: whole},
		{name: "x509." + which + ".distinguished_name", weight: 20, doc: "whole " + which, get: whole},
		commonName,
		attribute("organization", "organizations", 50, func(n *cert.Name) []string { return n.Organization }),
		attribute("organizational_unit", "organizational units", 50, func(n *cert.Name) []string { return n.OrganizationalUnit }),
		attribute("country", "countries", 200, func(n *cert.Name) []string { return n.Country }),
		attribute("locality", "localities", 100, func(n *cert.Name) []string { return n.Locality }),
		attribute("state_or_province", "states or provinces", 100, func(n *cert.Name) []string { return n.StateOrProvince }),
	}
}

// The functions below make getters of what a certificate says. An entry of a
// chain without a certificate has no values.

func ofCertificate(get func([]value, *cert.Certificate) []value) getter {
	return func(dst []value, _ *event.Handshake, c *event.ChainEntry) []value {
		if c.Certificate == nil {
			return dst
		}
		return get(dst, c.Certificate)
	}
}

func textOf(of func(*cert.Certificate) string) getter {
	return ofCertificate(func(dst []value, c *cert.Certificate) []value { return addText(dst, of(c)) })
}

func textsOf(of func(*cert.Certificate) []string) getter {
	return ofCertificate(func(dst []value, c *cert.Certificate) []value { return addTexts(dst, of(c)) })
}

func flagOf(of func(*cert.Certificate) bool) getter {
	return ofCertificate(func(dst []value, c *cert.Certificate) []value { return addFlag(dst, of(c)) })
}

func positiveOf(of func(*cert.Certificate) int) getter {
	return ofCertificate(func(dst []value, c *cert.Certificate) []value { return addPositive(dst, of(c)) })
}

func dateOf(of func(*cert.Certificate) cert.Date) getter {
	return ofCertificate(func(dst []value, c *cert.Certificate) []value {
		d := of(c)
		if !d.IsValid() {
			return dst
		}
		return append(dst, value{n: d.Unix()})
	})
}

func bytesOf(of func(*cert.Certificate) []byte) getter {
	return ofCertificate(func(dst []value, c *cert.Certificate) []value {
		b := of(c)
		if len(b) == 0 {
			return dst
		}
		return append(dst, value{raw: b})
	})
}

// hashOf makes the getter of a hash. A truncated certificate has no hash, and one
// that is all zero was never computed.
func hashOf(of func(*cert.Certificate) []byte) getter {
	return func(dst []value, _ *event.Handshake, c *event.ChainEntry) []value {
		if c.Certificate == nil || c.Truncated {
			return dst
		}
		sum := of(c.Certificate)
		if !slices.ContainsFunc(sum, func(b byte) bool { return b != 0 }) {
			return dst
		}
		return append(dst, value{raw: sum})
	}
}

// validityOf makes the getter of how a validity stands at the end of the
// handshake, in nanoseconds since 1970.
func validityOf(get func(dst []value, c *cert.Certificate, now int64) []value) getter {
	return func(dst []value, h *event.Handshake, c *event.ChainEntry) []value {
		if c.Certificate == nil {
			return dst
		}
		return get(dst, c.Certificate, h.End.Time)
	}
}
