// Package pcapfilter compiles capture filters: expressions in tcpdump's syntax,
// pcap-filter(7), become programs of the classic BPF machine.
//
// [Compile] makes a filter for frames as they are in a file, which this package
// runs. [CompileLive] makes a program for the kernel. [Check] finds mistakes in
// an expression before there is anything to filter.
//
// Understood are host, net, port and portrange with src and dst; the protocols
// ip, ip6, arp, rarp, tcp, udp, sctp, icmp, icmp6, igmp, pim, ah, esp and vrrp;
// proto, ether, vlan, broadcast, multicast, less and greater; and, or, not and
// parentheses, where and and or bind alike, from left to right. The rest of
// tcpdump's syntax is refused, such as bytes of the packet in brackets. So are
// names of hosts and networks: a sensor asks no name server.
//
// As with tcpdump, frames with a VLAN tag are matched by vlan and by what
// follows it in the expression alone: "port 443 or (vlan and port 443)" matches
// both kinds. The kernel takes the outer tag off before it runs a filter. On an
// interface, therefore, the words before vlan match frames with one tag too.
package pcapfilter

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Filter is a compiled filter. Several goroutines may use it at once.
type Filter struct {
	vm *bpf.VM
}

// wholeFrame is the number of bytes of a frame that a filter keeps where nobody
// looks at it: libpcap's MAXIMUM_SNAPLEN, as tcpdump -d shows it.
const wholeFrame = 256 << 10

// Compile compiles an expression for frames of one link type, as they are in a
// capture file. The empty expression matches every frame.
func Compile(expression string, link linktype.Type) (*Filter, error) {
	program, err := compile(expression, link, false, wholeFrame)
	if err != nil {
		return nil, err
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		return nil, fmt.Errorf("compile filter %q: %w", expression, err)
	}
	return &Filter{vm: vm}, nil
}

// Match reports whether the filter lets a frame pass. A frame that was cut
// before a byte that decides does not pass. less and greater compare the length
// of what was captured.
func (f *Filter) Match(frame []byte) bool {
	n, err := f.vm.Run(frame)
	return err == nil && n > 0
}

// CompileLive compiles an expression for frames of one link type as the kernel
// shows them to a filter of a packet socket: the outer VLAN tag is in the
// metadata. The program keeps snaplen bytes of the frames that match and nothing
// of the others.
func CompileLive(expression string, link linktype.Type, snaplen uint32) ([]bpf.Instruction, error) {
	return compile(expression, link, true, snaplen)
}

// Check returns the mistake in an expression, if there is one. What an expression
// needs of a link type, such as MAC addresses, only the others find missing.
func Check(expression string) error {
	if _, err := parse(expression); err != nil {
		return fmt.Errorf("compile filter %q: %w", expression, err)
	}
	return nil
}

func compile(expression string, link linktype.Type, live bool, snaplen uint32) ([]bpf.Instruction, error) {
	program, err := func() ([]bpf.Instruction, error) {
		e, err := parse(expression)
		if err != nil {
			return nil, err
		}
		matches, err := e.forLink(link, live)
		if err != nil {
			return nil, err
		}
		return assemble(matches, snaplen)
	}()
	if err != nil {
		return nil, fmt.Errorf("compile filter %q: %w", expression, err)
	}
	return program, nil
}
