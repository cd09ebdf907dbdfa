package pcapfilter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// ipProtocols are the transport protocols by the names that stand alone in an
// expression. v4 and v6 say over which network protocols they are looked for.
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

// keywords are the other words that cannot be an identifier.
var keywords = map[string]bool{
	"and": true, "or": true, "not": true, "(": true, ")": true,
	"src": true, "dst": true, "host": true, "net": true, "mask": true, "port": true, "portrange": true,
	"proto": true, "ether": true, "vlan": true, "less": true, "greater": true, "broadcast": true, "multicast": true,
}

func isKeyword(word string) bool {
	_, transport := ipProtocols[word]
	_, network := etherTypes[word]
	return transport || network || keywords[word]
}

// expr is a parsed expression. It returns its test for frames that are laid out as
// l says. Expressions are called from left to right, since vlan changes l for what
// follows.
type expr func(l *layout) (*test, error)

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
func (d direction) choose(source, destination *test) *test {
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

// parser reads an expression by recursive descent, as pcap-filter(7)
// describes it.
type parser struct {
	words []string
}

func parse(expression string) (expr, error) {
	if len(expression) > maxExpression {
		return nil, fmt.Errorf("the expression is longer than %d bytes", maxExpression)
	}
	words, err := split(expression)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return func(*layout) (*test, error) { return always, nil }, nil
	}
	p := parser{words: words}
	e, _, err := p.expression(nil)
	if err == nil && len(p.words) > 0 {
		err = p.unexpected()
	}
	return e, err
}

// split cuts an expression into words. The signs for and, or and not become these
// words.
func split(expression string) ([]string, error) {
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

// peek returns the next word, an empty one at the end.
func (p *parser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

// take goes past the next word if it is the one given, and reports whether it is.
func (p *parser) take(word string) bool {
	if p.peek() != word {
		return false
	}
	p.words = p.words[1:]
	return true
}

// next goes past the next word.
func (p *parser) next() string {
	word := p.peek()
	if word != "" {
		p.words = p.words[1:]
	}
	return word
}

func (p *parser) unexpected() error {
	switch word := p.peek(); {
	case word == "":
		return errors.New("the expression ends too early")
	case isKeyword(word):
		return fmt.Errorf("%q is not expected here", word)
	default:
		return fmt.Errorf("the word %q is not understood here", word)
	}
}

// identifier reports whether the next word can be one.
func (p *parser) identifier() bool {
	word := p.peek()
	return word != "" && !isKeyword(word)
}

// expression reads operands joined by and and or, which bind alike, from left
// to right. A bare identifier has the qualifiers of the operand before it. q are
// those for the first operand, or nil; those of the last operand are returned.
func (p *parser) expression(q *qualifiers) (expr, *qualifiers, error) {
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
		var right expr
		right, q, err = p.operand(q)
		left = joined(join, left, right)
	}
	return nil, nil, err
}

func joined(join func(...*test) *test, left, right expr) expr {
	return func(l *layout) (*test, error) {
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

func negated(e expr) expr {
	return func(l *layout) (*test, error) {
		t, err := e(l)
		if err != nil {
			return nil, err
		}
		return negate(t), nil
	}
}

func (p *parser) operand(q *qualifiers) (expr, *qualifiers, error) {
	switch {
	case p.take("not"):
		e, q, err := p.operand(q)
		if err != nil {
			return nil, nil, err
		}
		return negated(e), q, nil
	case p.take("("):
		e, q, err := p.expression(q)
		if err == nil && !p.take(")") {
			err = p.unexpected()
		}
		return e, q, err
	case p.identifier() && q != nil:
		e, err := q.apply(p)
		return e, q, err
	}
	return p.primitive()
}

// identifiers reads one identifier, or several that are joined in parentheses, and
// applies the qualifiers to each.
func (p *parser) identifiers(q *qualifiers) (expr, error) {
	switch {
	case p.take("not"):
		e, err := p.identifiers(q)
		if err != nil {
			return nil, err
		}
		return negated(e), nil
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
			var right expr
			right, err = p.identifiers(q)
			left = joined(join, left, right)
		}
		return nil, err
	case !p.identifier():
		return nil, p.unexpected()
	}
	return q.apply(p)
}

// primitive reads one test that is not a bare identifier.
func (p *parser) primitive() (expr, *qualifiers, error) {
	switch {
	case p.take("vlan"):
		e, err := p.vlan()
		return e, nil, err
	case p.take("less"):
		e, err := p.length(false)
		return e, nil, err
	case p.take("greater"):
		e, err := p.length(true)
		return e, nil, err
	}
	var q qualifiers
	if word := p.peek(); word == "ether" || isKeyword(word) && !keywords[word] {
		q.protocol = p.next()
	}
	if word := p.peek(); word == "broadcast" || word == "multicast" {
		p.next()
		e, err := castExpr(q.protocol, word)
		return e, nil, err
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
		return nil, nil, unqualified(q.protocol, q.kind)
	}
	e, err := p.identifiers(&q)
	return e, &q, err
}

// qualified are the protocols that go before each word; the empty one stands for
// none.
var qualified = map[string][]string{
	"host":      {"", "ether", "ip", "ip6", "arp", "rarp"},
	"net":       {"", "ip", "ip6", "arp", "rarp"},
	"port":      {"", "tcp", "udp", "sctp"},
	"portrange": {"", "tcp", "udp", "sctp"},
	"proto":     {"", "ether", "ip", "ip6"},
	"broadcast": {"", "ether"},
	"multicast": {"", "ether", "ip", "ip6"},
}

// unqualified is the error about a protocol that does not go before a word.
func unqualified(protocol, word string) error {
	return fmt.Errorf("%q is not supported: before %s goes none, or one of %s",
		protocol+" "+word, word, strings.Join(qualified[word][1:], ", "))
}

// direction reads src, dst, or both joined by and or or.
func (p *parser) direction(q *qualifiers) (found bool, err error) {
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
