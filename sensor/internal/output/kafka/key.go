package kafka

import (
	"bytes"
	"net"
)

// key is the server that a record is about: its address and port, or its MAC address
// where it has no IP. It is nil for a record about none. Records with the same key are
// in the same partition, and so in their order.
func key(record []byte) []byte {
	server := member(record, "destination")
	ip, port, mac := text(member(server, "ip")), text(member(server, "port")), text(member(server, "mac"))
	switch {
	case ip != "" && port != "":
		return []byte(net.JoinHostPort(ip, port))
	case ip != "":
		return []byte(ip)
	case mac != "":
		return []byte(mac)
	}
	return nil
}

// text is a number as it is written, or a string without its quotation marks. An
// address has no escapes.
func text(value []byte) string { return string(bytes.Trim(value, `"`)) }

// member is the value of a member of a JSON object, nil where it has none. It looks
// for the first one, passing over what stands before it without decoding that, and
// takes it on trust that object is JSON.
func member(object []byte, name string) []byte {
	b := skipSpace(object)
	if len(b) == 0 || b[0] != '{' {
		return nil
	}
	b = b[1:]
	for {
		b = skipSpace(b)
		n := valueLength(b)
		if n < 2 || b[0] != '"' {
			return nil
		}
		found := string(b[1:n-1]) == name
		b = skipSpace(b[n:])
		if len(b) == 0 || b[0] != ':' {
			return nil
		}
		b = skipSpace(b[1:])
		if n = valueLength(b); found {
			return b[:n]
		}
		b = skipSpace(b[n:])
		if len(b) == 0 || b[0] != ',' {
			return nil
		}
		b = b[1:]
	}
}

func skipSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// valueLength is how long the JSON value is that b begins with.
func valueLength(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(b))
			}
		case '{', '[':
			depth++
		case '}', ']':
			switch depth--; depth {
			case 0:
				return i + 1
			case -1: // of what the value is in
				return i
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}
