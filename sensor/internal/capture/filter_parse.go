package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// ipProtocols are the transport protocols by the names that stand alone in an
// expression, with the network protocols that they are looked for in.
var ipProtocols = map[string]struct {
	number uint32
	v4, v6 bool
}{
	"icmp":  {1, true, false},
	"igmp":  {2, true, false},
	"tcp":   {6, true, true},
	"udp":   {17, true, true},
	"esp":   {50, true, true},
	"ah":    {51, true, true},
	"icmp6": {58, false, true},
	"pim":   {103, true, true},
	"vrrp":  {112, true, false},
	"sctp":  {132, true, true},
}

// etherTypes are the network protocols by the names that stand alone in an
// expression.
var etherTypes = map[string]uint32{
	"ip": ethertype.IPv4, "ip6": ethertype.IPv6, "arp": ethertype.ARP, "rarp": ethertype.RARP,
}

// filterWords are the other words that cannot be an identifier.
var filterWords = map[string]bool{
	"and": true, "or": true, "not": true, "(": true, ")": true,
	"src": true, "dst": true, "host": true, "net": true, "mask": true, "port": true, "portrange": true,
	"proto": true, "ether": true, "vlan": true, "less": true, "greater": true, "broadcast": true, "multicast": true,
}

func isFilterWord(word string) bool {
	_, transport := ipProtocols[word]
	_, network := etherTypes[word]
	return transport || network || filterWords[word]
}

// qualifiers say what the identifier after them is.
type qualifiers struct {
	protocol  string // empty for any
	direction direction
	kind      string // host, net, port, portrange or proto
}

func (q *qualifiers) String() string {
	return strings.TrimSpace(q.protocol + " " + q.kind)
}

type direction uint8

const (
	srcOrDst direction = iota
	srcAndDst
	srcOnly
	dstOnly
)

// choose applies a direction to the tests of a source and of a destination.
func (d direction) choose(source, destination *frameTest) *frameTest {
	switch d {
	case srcOnly:
		return source
	case dstOnly:
		return destination
	case srcAndDst:
		return all(source, destination)
	}
	return either(source, destination)
}

// filterParser reads an expression by recursive descent, as pcap-filter(7)
// describes it.
type filterParser struct {
	words []string
}

func parseFilter(expression string) (filterExpr, error) {
	if len(expression) > maxFilterExpression {
		return nil, fmt.Errorf("the expression is longer than %d bytes", maxFilterExpression)
	}
	words, err := splitFilter(expression)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return func(*frameLayout) (*frameTest, error) { return always, nil }, nil
	}
	p := filterParser{words: words}
	expr, _, err := p.expression(nil)
	if err == nil && len(p.words) > 0 {
		err = p.unexpected()
	}
	return expr, err
}

// splitFilter cuts an expression into words, with and, or and not for their
// signs.
func splitFilter(expression string) ([]string, error) {
	var words []string
	for rest := expression; ; {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			return words, nil
		}
		switch {
		case rest[0] == '(', rest[0] == ')':
			words, rest = append(words, rest[:1]), rest[1:]
			continue
		case strings.HasPrefix(rest, "&&"):
			words, rest = append(words, "and"), rest[2:]
			continue
		case strings.HasPrefix(rest, "||"):
			words, rest = append(words, "or"), rest[2:]
			continue
		case rest[0] == '!' && !strings.HasPrefix(rest, "!="):
			words, rest = append(words, "not"), rest[1:]
			continue
		}
		n := strings.IndexFunc(rest, func(r rune) bool {
			letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
			return !letter && !strings.ContainsRune(`.:/-_\`, r)
		})
		switch {
		case n < 0:
			n = len(rest)
		case n == 0 && strings.IndexByte("[]=<>!+*%^&|", rest[0]) >= 0:
			return nil, fmt.Errorf("%q: comparisons of packet bytes are not supported", rest[:1])
		case n == 0:
			return nil, fmt.Errorf("%q is not expected here", []rune(rest)[0])
		}
		words, rest = append(words, rest[:n]), rest[n:]
	}
}

// peek returns the next word, or nothing at the end.
func (p *filterParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

// take goes past the next word when it is the one given.
func (p *filterParser) take(word string) bool {
	if p.peek() != word {
		return false
	}
	p.words = p.words[1:]
	return true
}

// next goes past the next word.
func (p *filterParser) next() string {
	word := p.peek()
	if word != "" {
		p.words = p.words[1:]
	}
	return word
}

func (p *filterParser) unexpected() error {
	switch word := p.peek(); {
	case word == "":
		return errors.New("the expression ends too early")
	case isFilterWord(word):
		return fmt.Errorf("%q is not expected here", word)
	default:
		return fmt.Errorf("the word %q is not understood here", word)
	}
}

// identifier tells whether the next word can be one.
func (p *filterParser) identifier() bool {
	word := p.peek()
	return word != "" && !isFilterWord(word)
}

// expression reads operands joined by and and or, which bind alike, from left
// to right. A bare identifier has the qualifiers of the operand before it; q
// are the ones for the first, or nil. The last ones are returned.
func (p *filterParser) expression(q *qualifiers) (filterExpr, *qualifiers, error) {
	left, q, err := p.operand(q)
	for err == nil {
		join := all
		switch {
		case p.take("and"):
		case p.take("or"):
			join = either
		default:
			return left, q, nil
		}
		var right filterExpr
		right, q, err = p.operand(q)
		left = joinExprs(join, left, right)
	}
	return nil, nil, err
}

func joinExprs(join func(...*frameTest) *frameTest, left, right filterExpr) filterExpr {
	return func(l *frameLayout) (*frameTest, error) {
		a, err := left(l)
		if err != nil {
			return nil, err
		}
		b, err := right(l)
		if err != nil {
			return nil, err
		}
		return join(a, b), nil
	}
}

func negateExpr(expr filterExpr) filterExpr {
	return func(l *frameLayout) (*frameTest, error) {
		t, err := expr(l)
		if err != nil {
			return nil, err
		}
		return negate(t), nil
	}
}

func (p *filterParser) operand(q *qualifiers) (filterExpr, *qualifiers, error) {
	switch {
	case p.take("not"):
		expr, q, err := p.operand(q)
		if err != nil {
			return nil, nil, err
		}
		return negateExpr(expr), q, nil
	case p.take("("):
		expr, q, err := p.expression(q)
		if err == nil && !p.take(")") {
			err = p.unexpected()
		}
		return expr, q, err
	case p.identifier() && q != nil:
		expr, err := q.apply(p)
		return expr, q, err
	}
	return p.primitive()
}

// identifiers reads what qualifiers are applied to: one identifier, or several
// joined in parentheses.
func (p *filterParser) identifiers(q *qualifiers) (filterExpr, error) {
	switch {
	case p.take("not"):
		expr, err := p.identifiers(q)
		if err != nil {
			return nil, err
		}
		return negateExpr(expr), nil
	case p.take("("):
		left, err := p.identifiers(q)
		for err == nil {
			join := all
			switch {
			case p.take("and"):
			case p.take("or"):
				join = either
			case p.take(")"):
				return left, nil
			default:
				return nil, p.unexpected()
			}
			var right filterExpr
			right, err = p.identifiers(q)
			left = joinExprs(join, left, right)
		}
		return nil, err
	case !p.identifier():
		return nil, p.unexpected()
	}
	return q.apply(p)
}

// primitive reads one test that is not a bare identifier.
func (p *filterParser) primitive() (filterExpr, *qualifiers, error) {
	switch {
	case p.take("vlan"):
		expr, err := p.vlan()
		return expr, nil, err
	case p.take("less"):
		expr, err := p.length(false)
		return expr, nil, err
	case p.take("greater"):
		expr, err := p.length(true)
		return expr, nil, err
	}
	var q qualifiers
	if word := p.peek(); word == "ether" || isFilterWord(word) && !filterWords[word] {
		q.protocol = p.next()
	}
	if word := p.peek(); word == "broadcast" || word == "multicast" {
		p.next()
		expr, err := castExpr(q.protocol, word)
		return expr, nil, err
	}
	directed, err := p.direction(&q)
	if err != nil {
		return nil, nil, err
	}
	switch word := p.peek(); {
	case word == "host", word == "net", word == "port", word == "portrange", word == "proto" && !directed:
		q.kind = p.next()
	case directed:
		q.kind = "host"
	case q.protocol == "", q.protocol == "ether":
		return nil, nil, p.unexpected()
	default:
		return protocolExpr(q.protocol), nil, nil
	}
	if !slices.Contains(qualified[q.kind], q.protocol) {
		return nil, nil, fmt.Errorf("%q is not something to match", q.protocol+" "+q.kind)
	}
	expr, err := p.identifiers(&q)
	return expr, &q, err
}

// qualified says which protocols each kind of identifier goes with.
var qualified = map[string][]string{
	"host":      {"", "ether", "ip", "ip6", "arp", "rarp"},
	"net":       {"", "ip", "ip6", "arp", "rarp"},
	"port":      {"", "tcp", "udp", "sctp"},
	"portrange": {"", "tcp", "udp", "sctp"},
	"proto":     {"", "ether", "ip", "ip6"},
}

// direction reads src, dst, or both joined by and or or.
func (p *filterParser) direction(q *qualifiers) (found bool, err error) {
	directions := map[string]direction{"src": srcOnly, "dst": dstOnly}
	first := p.peek()
	one, found := directions[first]
	if !found {
		return false, nil
	}
	p.next()
	q.direction = one
	if word := p.peek(); word != "and" && word != "or" {
		return true, nil
	}
	q.direction = srcOrDst
	if p.next() == "and" {
		q.direction = srcAndDst
	}
	if second, ok := directions[p.peek()]; !ok || second == one {
		return true, p.unexpected()
	}
	p.next()
	return true, nil
}

// vlan reads the identifier that may follow the word. What comes after it in
// the expression is looked for behind the tag.
func (p *filterParser) vlan() (filterExpr, error) {
	var id uint32
	given := p.identifier()
	if given {
		var err error
		if id, err = parseNumber("VLAN", p.next(), 4095); err != nil {
			return nil, err
		}
	}
	return func(l *frameLayout) (*frameTest, error) {
		if l.link != linktype.Ethernet {
			return nil, errors.New("vlan needs Ethernet frames")
		}
		l.vlan = true
		const mask = 0x0fff
		if l.tagAway {
			l.tagAway = false
			if !given {
				return always, nil
			}
			return &frameTest{
				load: []bpf.Instruction{
					bpf.LoadExtension{Num: bpf.ExtVLANTag},
					bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
				},
				cond: bpf.JumpEqual, value: id,
			}, nil
		}
		t := either(half(l.typ, ethertype.VLAN), half(l.typ, ethertype.QinQ), half(l.typ, ethertype.QinQ91))
		if given {
			t = all(t, compare(l.network, 2, mask, bpf.JumpEqual, id))
		}
		l.typ += 4
		l.network += 4
		return t, nil
	}, nil
}

// length reads the number after less or greater, which both include it.
func (p *filterParser) length(greater bool) (filterExpr, error) {
	if !p.identifier() {
		return nil, p.unexpected()
	}
	n, err := parseNumber("length", p.next(), 1<<31)
	if err != nil {
		return nil, err
	}
	cond := bpf.JumpLessOrEqual
	if greater {
		cond = bpf.JumpGreaterOrEqual
	}
	t := &frameTest{load: []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}, cond: cond, value: n}
	return func(*frameLayout) (*frameTest, error) { return t, nil }, nil
}

// protocolExpr tests for a protocol named by itself.
func protocolExpr(name string) filterExpr {
	return func(l *frameLayout) (*frameTest, error) {
		if etherType, ok := etherTypes[name]; ok {
			return l.carries(etherType), nil
		}
		protocol, t := ipProtocols[name], never
		if protocol.v4 {
			t = either(t, l.transport4(protocol.number))
		}
		if protocol.v6 {
			t = either(t, l.transport6(protocol.number))
		}
		return t, nil
	}
}

// castExpr tests for broadcast or multicast destinations.
func castExpr(protocol, word string) (filterExpr, error) {
	switch {
	case protocol == "ip" && word == "broadcast":
		return nil, errors.New("ip broadcast needs the netmask of the network, which is not known")
	case protocol == "ip":
		return func(l *frameLayout) (*frameTest, error) {
			return all(l.carries(ethertype.IPv4), compare(l.network+16, 1, 0xff, bpf.JumpGreaterOrEqual, 224)), nil
		}, nil
	case protocol == "ip6" && word == "multicast":
		return func(l *frameLayout) (*frameTest, error) {
			return all(l.carries(ethertype.IPv6), octet(l.network+24, 0xff)), nil
		}, nil
	case protocol != "" && protocol != "ether":
		return nil, fmt.Errorf("%q is not something to match", protocol+" "+word)
	}
	return func(l *frameLayout) (*frameTest, error) {
		switch {
		case l.link != linktype.Ethernet:
			return nil, fmt.Errorf("%s needs Ethernet frames", word)
		case word == "multicast":
			return compare(0, 1, 0xff, bpf.JumpBitsSet, 1), nil
		}
		return all(word32(2, 0xffffffff), half(0, 0xffff)), nil
	}, nil
}

// apply reads one identifier and tests for it as qualified.
func (q *qualifiers) apply(p *filterParser) (filterExpr, error) {
	word := p.next()
	switch q.kind {
	case "host":
		if q.protocol == "ether" {
			return q.mac(word)
		}
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, fmt.Errorf("host %q: not an address, and names are not looked up", word)
		}
		return q.network(netip.PrefixFrom(addr, addr.BitLen()))
	case "net":
		prefix, err := parseNetwork(word, p)
		if err != nil {
			return nil, err
		}
		return q.network(prefix)
	case "port", "portrange":
		return q.ports(word)
	}
	return q.proto(word)
}

func (q *qualifiers) mac(word string) (filterExpr, error) {
	mac, err := net.ParseMAC(word)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("ether host %q: not a MAC address", word)
	}
	return func(l *frameLayout) (*frameTest, error) {
		if l.link != linktype.Ethernet {
			return nil, errors.New("ether host needs Ethernet frames")
		}
		at := func(offset uint32) *frameTest {
			return all(
				word32(offset+2, binary.BigEndian.Uint32(mac[2:])),
				half(offset, uint32(binary.BigEndian.Uint16(mac))))
		}
		return q.direction.choose(at(6), at(0)), nil
	}, nil
}

// network tests for addresses in a prefix: of IP, and of ARP and RARP too when
// no protocol is named.
func (q *qualifiers) network(prefix netip.Prefix) (filterExpr, error) {
	addr := prefix.Addr()
	if q.protocol != "" && (q.protocol == "ip6") != addr.Is6() {
		return nil, fmt.Errorf("%s: %s is not an address of it", q, addr)
	}
	if addr.Is6() {
		return func(l *frameLayout) (*frameTest, error) {
			address := addr.As16()
			at := func(offset uint32) *frameTest {
				t := always
				for i := range 4 {
					if mask := leadingBits(prefix.Bits() - 32*i); mask != 0 {
						field := offset + uint32(4*i)
						t = all(t, compare(field, 4, mask, bpf.JumpEqual, binary.BigEndian.Uint32(address[4*i:])))
					}
				}
				return t
			}
			return all(l.carries(ethertype.IPv6), q.direction.choose(at(l.network+8), at(l.network+24))), nil
		}, nil
	}
	return func(l *frameLayout) (*frameTest, error) {
		address := addr.As4()
		mask := leadingBits(prefix.Bits())
		at := func(offset uint32) *frameTest {
			if mask == 0 {
				return always
			}
			return compare(l.network+offset, 4, mask, bpf.JumpEqual, binary.BigEndian.Uint32(address[:]))
		}
		t := never
		for _, protocol := range [...]struct {
			name                string
			etherType           uint32
			source, destination uint32
		}{
			{"ip", ethertype.IPv4, 12, 16},
			{"arp", ethertype.ARP, 14, 24},
			{"rarp", ethertype.RARP, 14, 24},
		} {
			if q.protocol == "" || q.protocol == protocol.name {
				t = either(t, all(
					l.carries(protocol.etherType),
					q.direction.choose(at(protocol.source), at(protocol.destination))))
			}
		}
		return t, nil
	}, nil
}

// leadingBits returns a mask of the first n bits, of all or none where n goes
// past either end.
func leadingBits(n int) uint32 {
	return ^uint32(0) << (32 - min(max(n, 0), 32))
}

// parseNetwork reads a network as a prefix, as the leading bytes of an IPv4
// address, or with a mask after it.
func parseNetwork(word string, p *filterParser) (netip.Prefix, error) {
	address, length, slash := strings.Cut(word, "/")
	addr, err := netip.ParseAddr(address)
	bits := addr.BitLen()
	if parts := strings.Count(address, ".") + 1; err != nil && parts < 4 {
		addr, err = netip.ParseAddr(address + strings.Repeat(".0", 4-parts))
		bits = 8 * parts
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("net %q: not an address, and names are not looked up", word)
	}
	switch {
	case slash:
		n, err := parseNumber("prefix length", length, uint32(addr.BitLen()))
		if err != nil {
			return netip.Prefix{}, err
		}
		bits = int(n)
	case addr.Is4() && p.take("mask"):
		mask, err := netip.ParseAddr(p.next())
		if err != nil || !mask.Is4() {
			return netip.Prefix{}, fmt.Errorf("net %s: the mask is not an IPv4 address", word)
		}
		octets := mask.As4()
		ones, size := net.IPMask(octets[:]).Size()
		if size == 0 {
			return netip.Prefix{}, fmt.Errorf("net %s: the mask %s is not a run of leading ones", word, mask)
		}
		bits = ones
	}
	prefix := netip.PrefixFrom(addr, bits)
	if prefix.Masked() != prefix {
		return netip.Prefix{}, fmt.Errorf("net %s: bits are set past the prefix of %d", word, bits)
	}
	return prefix, nil
}

// ports tests for a port or a range of ports of TCP, UDP and SCTP, or of the
// one of them that is named.
func (q *qualifiers) ports(word string) (filterExpr, error) {
	low, high, protocol, err := q.parsePorts(word)
	if err != nil {
		return nil, err
	}
	return func(l *frameLayout) (*frameTest, error) {
		oneOf := func(offset uint32) *frameTest {
			if protocol != "" {
				return octet(offset, ipProtocols[protocol].number)
			}
			return either(
				octet(offset, ipProtocols["tcp"].number),
				octet(offset, ipProtocols["udp"].number),
				octet(offset, ipProtocols["sctp"].number))
		}
		inRange := func(load ...bpf.Instruction) *frameTest {
			if low == high {
				return &frameTest{load: load, cond: bpf.JumpEqual, value: low}
			}
			return all(
				&frameTest{load: load, cond: bpf.JumpGreaterOrEqual, value: low},
				&frameTest{load: load, cond: bpf.JumpLessOrEqual, value: high})
		}
		header := bpf.LoadMemShift{Off: l.network}
		return either(
			all(
				l.carries(ethertype.IPv4), oneOf(l.network+9),
				// A later fragment has no ports.
				negate(compare(l.network+6, 2, 0xffff, bpf.JumpBitsSet, 0x1fff)),
				q.direction.choose(
					inRange(header, bpf.LoadIndirect{Off: l.network, Size: 2}),
					inRange(header, bpf.LoadIndirect{Off: l.network + 2, Size: 2}))),
			all(
				l.carries(ethertype.IPv6), oneOf(l.network+6),
				q.direction.choose(
					inRange(bpf.LoadAbsolute{Off: l.network + 40, Size: 2}),
					inRange(bpf.LoadAbsolute{Off: l.network + 42, Size: 2}))),
		), nil
	}, nil
}

// parsePorts reads a port by number or by the name of its service, or a range
// of numbers. It returns the protocol too, since a service may be of one only.
func (q *qualifiers) parsePorts(word string) (low, high uint32, protocol string, err error) {
	first, last := word, word
	if from, to, ok := strings.Cut(word, "-"); ok && q.kind == "portrange" {
		first, last = from, to
	}
	if q.kind == "port" && (word[0] < '0' || '9' < word[0]) {
		port, protocol, err := q.service(word)
		return port, port, protocol, err
	}
	if low, err = parseNumber("port", first, 65535); err == nil {
		high, err = parseNumber("port", last, 65535)
	}
	return min(low, high), max(low, high), q.protocol, err
}

// service looks a port up in this machine's list of services, which is a file.
func (q *qualifiers) service(name string) (port uint32, protocol string, err error) {
	tcp, notTCP := net.LookupPort("tcp", name)
	udp, notUDP := net.LookupPort("udp", name)
	switch {
	case q.protocol == "" && notTCP == nil && notUDP == nil && tcp == udp:
		return uint32(tcp), "", nil
	case q.protocol != "udp" && q.protocol != "sctp" && notTCP == nil:
		return uint32(tcp), "tcp", nil
	case q.protocol != "tcp" && q.protocol != "sctp" && notUDP == nil:
		return uint32(udp), "udp", nil
	}
	return 0, "", fmt.Errorf("%s %q: no such service, give its number", q, name)
}

// proto tests for a protocol by number, or by name after a backslash that tells
// it from the word that stands alone.
func (q *qualifiers) proto(word string) (filterExpr, error) {
	name := strings.TrimPrefix(word, `\`)
	if q.protocol == "ether" {
		etherType, ok := etherTypes[name]
		if !ok {
			var err error
			if etherType, err = parseNumber("ether proto", word, 65535); err != nil {
				return nil, err
			}
			if etherType < ethertype.Min {
				return nil, fmt.Errorf("ether proto %s: not an EtherType, which is 1536 or more", word)
			}
		}
		return func(l *frameLayout) (*frameTest, error) { return l.carries(etherType), nil }, nil
	}
	number := ipProtocols[name].number
	if number == 0 {
		var err error
		if number, err = parseNumber("proto", word, 255); err != nil {
			return nil, err
		}
	}
	return func(l *frameLayout) (*frameTest, error) {
		t := never
		if q.protocol != "ip6" {
			t = either(t, l.transport4(number))
		}
		if q.protocol != "ip" {
			t = either(t, l.transport6(number))
		}
		return t, nil
	}, nil
}

// parseNumber reads a number: decimal, octal after 0, or hexadecimal after 0x.
func parseNumber(what, word string, most uint32) (uint32, error) {
	n, err := strconv.ParseUint(word, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q: not a number", what, word)
	}
	if n > uint64(most) {
		return 0, fmt.Errorf("%s %s: more than %d", what, word, most)
	}
	return uint32(n), nil
}
