//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// tds starts a server that opens connections as Microsoft's SQL Server does
// (MS-TDS, section 3.3.5), shows a certificate, and refuses to go on.
func (s *stage) tds(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: tds PORT NAME")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, args[1]+".pem"), filepath.Join(s.dir, args[1]+".key"))
	if err != nil {
		return err
	}
	listener := s.Server.Listen(s.t, net.JoinHostPort(s.ServerIP, args[0]))
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				packets := &tdsConn{Conn: conn}
				if _, err := packets.Read(make([]byte, 4096)); err != nil { // the client's pre-login
					return
				}
				packets.typ = 4
				packets.Write([]byte("\x00\x00\x0b\x00\x06\x01\x00\x11\x00\x01\xff" + "\x10\x00\x00\x00\x00\x00" + "\x01")) // version 16, encryption on
				packets.typ = 0x12
				secured := tls.Server(packets, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12})
				if secured.Handshake() == nil {
					packets.bare = true
					secured.Read(make([]byte, 4096)) // the login
				}
			}()
		}
	}()
	return nil
}

// tdsConn puts a stream into packets (MS-TDS, section 2.2.3).
type tdsConn struct {
	net.Conn
	typ  byte // of those that are written
	left int  // of the packet that is read
	bare bool // no longer
}

func (c *tdsConn) Read(b []byte) (int, error) {
	for !c.bare && c.left == 0 {
		var header [8]byte
		if _, err := io.ReadFull(c.Conn, header[:]); err != nil {
			return 0, err
		}
		c.left = int(binary.BigEndian.Uint16(header[2:])) - len(header)
	}
	if c.bare {
		return c.Conn.Read(b)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

func (c *tdsConn) Write(b []byte) (int, error) {
	if c.bare {
		return c.Conn.Write(b)
	}
	const most = 512 - 8
	for rest := b; len(rest) > 0; {
		part := rest[:min(len(rest), most)]
		rest = rest[len(part):]
		header := []byte{c.typ, 0, 0, 0, 0, 0, 1, 0}
		if len(rest) == 0 {
			header[1] = 1
		}
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(part)))
		if _, err := c.Conn.Write(append(header, part...)); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// turn relays over a TURN server at port 3478 of the server (RFC 8656, RFC
// 6062) what comes to a port of the client's loopback to a port of the server,
// and the answers back.
func (s *stage) turn(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: turn udp|tcp channel|indication|connection PORT PEER")
	}
	var peer int
	if _, err := fmt.Sscan(args[3], &peer); err != nil {
		return err
	}
	var conn net.Conn
	var err error
	s.Client.Do(func() { conn, err = net.Dial(args[0], s.turnServer()) })
	if err != nil {
		return err
	}
	s.t.Cleanup(func() { conn.Close() })
	r := &turnClient{Conn: conn, stream: args[0] == "tcp"}
	conn.SetDeadline(time.Now().Add(patience))
	address := net.ParseIP(s.ServerIP).To4()
	for i := range len(turnCookie) {
		address[i] ^= turnCookie[i]
	}
	r.peer = turnAttribute(0x12, append(binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(peer)^0x2112), address...))
	transport := byte(unix.IPPROTO_UDP)
	if args[1] == "connection" {
		transport = unix.IPPROTO_TCP
	}
	if _, err := r.ask(turnAllocate, turnAttribute(0x19, []byte{transport, 0, 0, 0})); err != nil {
		return err
	}
	if _, err := r.ask(turnCreatePermission, r.peer); err != nil {
		return err
	}
	switch args[1] {
	case "channel":
		if _, err := r.ask(turnChannelBind, append(turnAttribute(0x0c, []byte{0x40, 0, 0, 0}), r.peer...)); err != nil {
			return err
		}
		return s.relayDatagrams(r, args[2], true)
	case "indication":
		return s.relayDatagrams(r, args[2], false)
	case "connection":
		return s.relayConnection(r, args[2])
	}
	return fmt.Errorf("TURN relays no %s", args[1])
}

func (s *stage) turnServer() string { return net.JoinHostPort(s.ServerIP, "3478") }

// relayConnection relays the first connection to a port (RFC 6062, section 4.3).
func (s *stage) relayConnection(r *turnClient, port string) error {
	answer, err := r.ask(turnConnect, r.peer)
	if err != nil {
		return err
	}
	id := turnAttributeOf(answer, 0x2a)
	bound := &turnClient{Conn: s.Client.Dial(s.t, s.turnServer()), stream: true}
	if _, err := bound.ask(turnConnectionBind, turnAttribute(0x2a, id)); err != nil {
		return err
	}
	listener := s.Client.Listen(s.t, "127.0.0.1:"+port)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		go io.Copy(bound, conn)
		io.Copy(conn, bound)
	}()
	return nil
}

// relayDatagrams relays those that come to a port, in channel data or in
// indications.
func (s *stage) relayDatagrams(r *turnClient, port string, channel bool) error {
	var local net.PacketConn
	var err error
	s.Client.Do(func() { local, err = net.ListenPacket("udp", "127.0.0.1:"+port) })
	if err != nil {
		return err
	}
	s.t.Cleanup(func() { local.Close() })
	from := make(chan net.Addr, 1)
	go func() {
		var b [2048]byte
		for {
			n, addr, err := local.ReadFrom(b[:])
			if err != nil {
				return
			}
			select {
			case from <- addr:
			default:
			}
			if !channel {
				r.say(turnSend, append(bytes.Clone(r.peer), turnAttribute(0x13, b[:n])...))
				continue
			}
			p := append(binary.BigEndian.AppendUint16([]byte{0x40, 0}, uint16(n)), b[:n]...)
			if r.stream {
				p = append(p, make([]byte, -n&3)...)
			}
			r.Write(p)
		}
	}()
	go func() {
		addr := <-from
		for {
			b, err := r.next()
			switch {
			case err != nil:
				return
			case b[0] == 0x40:
				local.WriteTo(b[4:4+binary.BigEndian.Uint16(b[2:])], addr)
			case binary.BigEndian.Uint16(b) == turnData:
				local.WriteTo(turnAttributeOf(b, 0x13), addr)
			}
		}
	}()
	return nil
}

const turnCookie = "\x21\x12\xa4\x42"

// Types of messages.
const (
	turnAllocate         = 0x03
	turnCreatePermission = 0x08
	turnChannelBind      = 0x09
	turnConnect          = 0x0a
	turnConnectionBind   = 0x0b
	turnSend             = 0x16
	turnData             = 0x17
	turnSuccess          = 0x100
)

// turnClient talks to a TURN server.
type turnClient struct {
	net.Conn
	stream bool   // and no datagrams
	peer   []byte // XOR-PEER-ADDRESS
}

// turnAttribute is one attribute of a message (RFC 8489, section 14).
func turnAttribute(typ uint16, value []byte) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, typ), uint16(len(value)))
	return append(append(b, value...), make([]byte, -len(value)&3)...)
}

// turnAttributeOf is the value of the attribute of that type in a message.
func turnAttributeOf(message []byte, typ uint16) []byte {
	for a := message[20:]; len(a) >= 4; {
		n := int(binary.BigEndian.Uint16(a[2:]))
		if binary.BigEndian.Uint16(a) == typ {
			return a[4 : 4+n]
		}
		a = a[4+(n+3)&^3:]
	}
	return nil
}

// ask sends a request and returns the answer, which must not be an error.
func (c *turnClient) ask(typ uint16, attributes []byte) ([]byte, error) {
	if err := c.say(typ, attributes); err != nil {
		return nil, err
	}
	answer, err := c.next()
	if err == nil && binary.BigEndian.Uint16(answer) != typ|turnSuccess {
		err = fmt.Errorf("TURN answers %x to %#x", answer, typ)
	}
	return answer, err
}

// say sends a message.
func (c *turnClient) say(typ uint16, attributes []byte) error {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, typ), uint16(len(attributes)))
	b = append(b, turnCookie...)
	b = append(b, make([]byte, 12)...)
	rand.Read(b[8:])
	_, err := c.Write(append(b, attributes...))
	return err
}

// next reads a message, or channel data.
func (c *turnClient) next() ([]byte, error) {
	if !c.stream {
		b := make([]byte, 2048)
		n, err := c.Read(b)
		if err == nil && n < 4 {
			err = io.ErrUnexpectedEOF
		}
		return b[:n], err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		return nil, err
	}
	rest := int(binary.BigEndian.Uint16(b[2:])+3) &^ 3
	if b[0] < 0x40 {
		rest += 16
	}
	b = append(b, make([]byte, rest)...)
	_, err := io.ReadFull(c.Conn, b[4:])
	return b, err
}
