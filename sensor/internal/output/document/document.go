// Package document reads records back, for the outputs that write them in other
// forms than their own.
package document

import (
	"encoding/json"
	"fmt"
	"time"
)

// Document is a record with what the other forms ask for. Members that the record
// does not have are zero; FIELDS.md in package schema says which dataset has which.
// Hashes and serial numbers are upper-case hex without separators.
type Document struct {
	Time        time.Time         `json:"@timestamp"`
	Message     string            `json:"message"`
	Labels      map[string]string `json:"labels"`
	Event       Event             `json:"event"`
	Source      Endpoint          `json:"source"`      // the client
	Destination Endpoint          `json:"destination"` // the server
	Network     Network           `json:"network"`
	Observer    Observer          `json:"observer"`
	Log         Log               `json:"log"`
	TLS         TLS               `json:"tls"`
	Rule        Rule              `json:"rule"`
	Threat      Threat            `json:"threat"`
	Related     Related           `json:"related"`
	Oddcert     Oddcert           `json:"oddcert"`
}

// Event is what kind of record it is.
type Event struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Dataset  string    `json:"dataset"` // such as oddcert.alert
	Start    time.Time `json:"start"`
	Duration int64     `json:"duration"` // nanoseconds
	Severity int       `json:"severity"` // 21, 47, 73 or 99
	Reason   string    `json:"reason"`
}

// Endpoint is one end of a flow.
type Endpoint struct {
	IP     string `json:"ip"`
	Port   uint16 `json:"port"`
	MAC    string `json:"mac"`
	Domain string `json:"domain"` // that the client asks for
}

// Network is about the flow.
type Network struct {
	Transport   string `json:"transport"` // tcp, udp, sctp, eapol
	Type        string `json:"type"`      // ipv4, ipv6
	Protocol    string `json:"protocol"`  // tls, dtls, quic
	Application string `json:"application"`
	CommunityID string `json:"community_id"`
	Direction   string `json:"direction"`
	VLAN        VLAN   `json:"vlan"`
	Inner       struct {
		VLAN VLAN `json:"vlan"`
	} `json:"inner"`
}

// VLAN is a tag.
type VLAN struct {
	ID string `json:"id"`
}

// Observer is the sensor.
type Observer struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Ingress struct {
		Interface struct {
			Name string `json:"name"`
		} `json:"interface"`
	} `json:"ingress"`
}

// Log is where the packets were read.
type Log struct {
	File struct {
		Path string `json:"path"`
	} `json:"file"`
}

// TLS is about the handshake.
type TLS struct {
	Version         string `json:"version"`          // 1.2
	VersionProtocol string `json:"version_protocol"` // tls, dtls
	Cipher          string `json:"cipher"`
	Curve           string `json:"curve"`
	NextProtocol    string `json:"next_protocol"`
	Resumed         bool   `json:"resumed"`
	Established     *bool  `json:"established"` // nil when it is not known
	Client          Party  `json:"client"`
	Server          Party  `json:"server"`
}

// Party is what one end has shown.
type Party struct {
	ServerName       string    `json:"server_name"`
	JA3              string    `json:"ja3"`
	JA3S             string    `json:"ja3s"`
	SupportedCiphers []string  `json:"supported_ciphers"`
	Hash             Hash      `json:"hash"` // of the leaf
	Subject          string    `json:"subject"`
	Issuer           string    `json:"issuer"`
	NotBefore        time.Time `json:"not_before"`
	NotAfter         time.Time `json:"not_after"`
	CertificateChain []string  `json:"certificate_chain"` // base64 of DER
	X509             X509      `json:"x509"`
}

// Hash is of the DER of a certificate.
type Hash struct {
	MD5    string `json:"md5"`
	SHA1   string `json:"sha1"`
	SHA256 string `json:"sha256"`
}

// X509 is a certificate as ECS has it.
type X509 struct {
	VersionNumber      string    `json:"version_number"`
	SerialNumber       string    `json:"serial_number"`
	SignatureAlgorithm string    `json:"signature_algorithm"` // Go's name: SHA256-RSA
	PublicKeyAlgorithm string    `json:"public_key_algorithm"`
	PublicKeySize      int       `json:"public_key_size"` // bits
	PublicKeyExponent  int64     `json:"public_key_exponent"`
	PublicKeyCurve     string    `json:"public_key_curve"`
	NotBefore          time.Time `json:"not_before"`
	NotAfter           time.Time `json:"not_after"`
	AlternativeNames   []string  `json:"alternative_names"`
	Subject            Name      `json:"subject"`
	Issuer             Name      `json:"issuer"`
}

// Name is a distinguished name.
type Name struct {
	DistinguishedName  string   `json:"distinguished_name"`
	CommonName         []string `json:"common_name"`
	Organization       []string `json:"organization"`
	OrganizationalUnit []string `json:"organizational_unit"`
	Country            []string `json:"country"`
	Locality           []string `json:"locality"`
	StateOrProvince    []string `json:"state_or_province"`
}

// Rule is the rule that matched.
type Rule struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Category    string   `json:"category"`
	Ruleset     string   `json:"ruleset"`
	Version     string   `json:"version"`
	Author      []string `json:"author"`
	Reference   []string `json:"reference"`
	License     string   `json:"license"`
	Level       string   `json:"level"` // low, medium, high, critical
}

// Threat is the rule's place in MITRE ATT&CK.
type Threat struct {
	Tactic    Technique `json:"tactic"`
	Technique struct {
		Technique
		Subtechnique Technique `json:"subtechnique"`
	} `json:"technique"`
}

// Technique is a list of techniques or tactics.
type Technique struct {
	ID        []string `json:"id"`
	Name      []string `json:"name"`
	Reference []string `json:"reference"`
}

// Related is what to search other data by.
type Related struct {
	IP    []string `json:"ip"`
	Hosts []string `json:"hosts"`
	Hash  []string `json:"hash"`
}

// Oddcert is what ECS has no fields for.
type Oddcert struct {
	JA4            string          `json:"ja4"`
	Certificates   string          `json:"certificates"` // extracted, encrypted, resumed, none, lost
	Loss           string          `json:"loss"`
	Carrier        string          `json:"carrier"`
	Verdict        string          `json:"verdict"`
	VerdictReasons []string        `json:"verdict_reasons"`
	KeyProof       string          `json:"key_proof"`
	Network        []string        `json:"network"`
	Alerts         int             `json:"alerts"`
	PCAP           PCAP            `json:"pcap"`
	Match          Match           `json:"match"`
	Trust          Trust           `json:"trust"`
	Hello          Hello           `json:"hello"`
	Certificate    Certificate     `json:"certificate"` // of a certificate and of a sighting
	Chain          Chain           `json:"chain"`
	ClientChain    Chain           `json:"client_chain"`
	Sighting       Sighting        `json:"sighting"`
	Suppressed     Suppressed      `json:"suppressed"` // of an alert that sums up others
	Correlation    Correlation     `json:"correlation"`
	Stats          json.RawMessage `json:"stats"` // of the statistics
}

// PCAP is where in a capture the packets are.
type PCAP struct {
	PacketNumber uint64 `json:"packet_number"`
	Filter       string `json:"filter"`
}

// Match is what a rule matched on.
type Match struct {
	Field string `json:"field"`
	Value string `json:"value"`
	List  string `json:"list"`
}

// Trust is whether the chain is trusted.
type Trust struct {
	Status string `json:"status"`
	Store  string `json:"store"`
}

// Hello is what the client offers.
type Hello struct {
	Version             string   `json:"version"`
	SupportedVersions   []string `json:"supported_versions"`
	Extensions          []string `json:"extensions"`
	SupportedGroups     []string `json:"supported_groups"`
	SignatureAlgorithms []string `json:"signature_algorithms"`
	PointFormats        []string `json:"point_formats"`
	ALPN                []string `json:"alpn"`
}

// Sighting is whether a server has this certificate for the first time.
type Sighting struct {
	Change   string `json:"change"` // new, changed
	Previous struct {
		Hash Hash `json:"hash"`
	} `json:"previous"`
}

// Suppressed counts matches that were not raised.
type Suppressed struct {
	Count      uint64    `json:"count"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	By         []string  `json:"by"`
	FirstAlert string    `json:"first_alert"`
}

// Correlation is what a correlation rule counted.
type Correlation struct {
	Count uint64    `json:"count"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// Certificate is all that is known of one certificate.
type Certificate struct {
	Role             string   `json:"role"`
	Position         int      `json:"position"` // in the chain, from 0
	Hash             Hash     `json:"hash"`
	SPKI             Hash     `json:"spki"`
	Subject          string   `json:"subject"`
	Issuer           string   `json:"issuer"`
	Names            []string `json:"name"`
	SerialNumber     string   `json:"serial_number"`
	NotBefore        string   `json:"not_before"`
	NotAfter         string   `json:"not_after"`
	SelfSigned       *bool    `json:"self_signed"`
	IsCA             *bool    `json:"is_ca"`
	PathLen          *int     `json:"path_len"`
	KeyUsage         []string `json:"key_usage"`
	ExtendedKeyUsage []string `json:"extended_key_usage"`
	SubjectKeyID     string   `json:"subject_key_id"`
	AuthorityKeyID   string   `json:"authority_key_id"`
	Truncated        bool     `json:"truncated"`
	X509             X509     `json:"x509"`
	DER              string   `json:"der"` // base64
	Validity         struct {
		Expired     bool `json:"expired"`
		NotYetValid bool `json:"not_yet_valid"`
		Days        int  `json:"days"`
		DaysLeft    int  `json:"days_left"`
	} `json:"validity"`
}

// Chain is the certificates that an end has sent: all of them with all that is known
// in an alert and a full handshake, or else their hashes.
type Chain struct {
	Certificates []Certificate
	SHA256       []string // of those that are whole, in order
}

// UnmarshalJSON reads either form.
func (c *Chain) UnmarshalJSON(b []byte) error {
	*c = Chain{}
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &c.Certificates); err != nil {
			return err
		}
		for i := range c.Certificates {
			if sum := c.Certificates[i].Hash.SHA256; sum != "" {
				c.SHA256 = append(c.SHA256, sum)
			}
		}
		return nil
	}
	var hashes struct {
		Hash struct {
			SHA256 []string `json:"sha256"`
		} `json:"hash"`
	}
	err := json.Unmarshal(b, &hashes)
	c.SHA256 = hashes.Hash.SHA256
	return err
}

// Read reads a record.
func Read(record []byte) (*Document, error) {
	d := new(Document)
	if err := json.Unmarshal(record, d); err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	return d, nil
}
