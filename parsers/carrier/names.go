package carrier

// Carrier is what carries TLS: what a stream, or the datagrams of a flow, said
// before TLS began, or what TLS is packed into.
type Carrier uint8

// The carriers. Of nested ones, such as STARTTLS behind a proxy, the innermost
// counts. [Carrier.Doc] says what each is.
const (
	None    Carrier = iota // nothing: TLS is the first thing in the stream
	Unknown                // something that is not known

	// Protocols that a [Scanner] follows.
	SMTP
	IMAP
	POP3
	FTP
	LDAP
	XMPP
	IRC
	NNTP
	Sieve
	PostgreSQL
	MySQL
	AMQP
	HTTPUpgrade
	HTTPConnect
	SOCKS4
	SOCKS4a
	SOCKS5
	ProxyProtocol
	TDS
	RDP
	FTPGSSAPI
	SASL

	// Those that no Scanner finds.
	PostgreSQLDirect
	SSLv2
	DTLS
	QUIC
	TURN
	STUN
	CAPWAP
	OpenVPN
	RDPUDP
	EAPTLS
	EAPTTLS
	PEAP
	EAPFAST
	TEAP

	Carriers // how many carriers there are
)

// carriers are the names of the carriers in records, and what they mean. Where
// both sides agree in the clear to go on in TLS, the name begins with starttls-,
// whatever the protocol calls it.
var carriers = [Carriers]struct{ name, doc string }{
	None:    {"tls", "TLS from the first byte of the stream."},
	Unknown: {"unknown", "TLS after bytes of a protocol that is not known."},

	SMTP:       {"starttls-smtp", "STARTTLS in SMTP or LMTP (RFC 3207)."},
	IMAP:       {"starttls-imap", "STARTTLS in IMAP (RFC 9051, section 6.2.1)."},
	POP3:       {"starttls-pop3", "STLS in POP3 (RFC 2595, section 4)."},
	FTP:        {"starttls-ftp", "AUTH TLS in FTP (RFC 4217)."},
	LDAP:       {"starttls-ldap", "The StartTLS operation of LDAP (RFC 4511, section 4.14)."},
	XMPP:       {"starttls-xmpp", "The starttls element of XMPP (RFC 6120, section 5)."},
	IRC:        {"starttls-irc", "STARTTLS in IRC (IRCv3 tls-3.1)."},
	NNTP:       {"starttls-nntp", "STARTTLS in NNTP (RFC 4642)."},
	Sieve:      {"starttls-sieve", "STARTTLS in ManageSieve (RFC 5804, section 2.2)."},
	PostgreSQL: {"starttls-postgresql", "The SSLRequest of PostgreSQL (PostgreSQL, section 54.2.11)."},
	MySQL:      {"starttls-mysql", "The SSLRequest of MySQL or MariaDB."},
	AMQP:       {"starttls-amqp", "The TLS protocol header of AMQP (AMQP 1.0, section 5.2.1)."},

	HTTPUpgrade:   {"http-upgrade", "Upgrade: TLS/1.0 in HTTP (RFC 2817)."},
	HTTPConnect:   {"http-connect", "A tunnel through an HTTP proxy, opened by CONNECT (RFC 9110, section 9.3.6)."},
	SOCKS4:        {"socks4", "A connection through a proxy of SOCKS 4."},
	SOCKS4a:       {"socks4a", "A connection through a proxy of SOCKS 4a, to a host by its name."},
	SOCKS5:        {"socks5", "A connection through a proxy of SOCKS 5 (RFC 1928)."},
	ProxyProtocol: {"proxy-protocol", "The header that a load balancer puts before a stream (HAProxy, PROXY protocol 1 or 2)."},

	TDS:              {"tds", "Pre-login packets of Microsoft SQL Server, or TLS whose ALPN is tds/8.0 (MS-TDS, section 2.2.6.5)."},
	RDP:              {"rdp", "An X.224 connection of Remote Desktop (MS-RDPBCGR, section 1.3.1.1)."},
	FTPGSSAPI:        {"ftp-gssapi", "TLS in base64 in the ADAT tokens of FTP (RFC 2228, GFD.20)."},
	SASL:             {"sasl", "TLS in base64 in the tokens of another protocol's authentication (RFC 4422)."},
	PostgreSQLDirect: {"postgresql", "PostgreSQL whose TLS begins with the first byte, as its ALPN says."},

	SSLv2: {"sslv2", "The hellos of SSL 2.0, whose handshake has a form of its own."},
	DTLS:  {"dtls", "DTLS over UDP or SCTP (RFC 9147, RFC 6083)."},
	QUIC:  {"quic", "TLS in the CRYPTO frames of QUIC (RFC 9001)."},

	TURN:    {"turn", "DTLS in channel data or indications of TURN (RFC 8656)."},
	STUN:    {"stun", "DTLS in the connectivity checks of ICE (draft-hancke-webrtc-sped)."},
	CAPWAP:  {"capwap", "DTLS behind the preamble of CAPWAP (RFC 5415, section 4.2)."},
	OpenVPN: {"openvpn", "The control channel of OpenVPN."},
	RDPUDP:  {"rdp-udp", "Remote Desktop over UDP (MS-RDPEUDP, MS-RDPEUDP2)."},

	EAPTLS:  {"eap-tls", "EAP-TLS, in RADIUS or EAPOL (RFC 5216)."},
	EAPTTLS: {"eap-ttls", "EAP-TTLS, in RADIUS or EAPOL (RFC 5281)."},
	PEAP:    {"peap", "PEAP, in RADIUS or EAPOL (draft-josefsson-pppext-eap-tls-eap)."},
	EAPFAST: {"eap-fast", "EAP-FAST, in RADIUS or EAPOL (RFC 4851)."},
	TEAP:    {"teap", "TEAP, in RADIUS or EAPOL (RFC 7170)."},
}

// String is the name of c in records.
func (c Carrier) String() string { return carriers[c].name }

// Doc is a sentence that says what c is.
func (c Carrier) Doc() string { return carriers[c].doc }
