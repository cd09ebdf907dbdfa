package traffic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

// quicSalt is that of QUIC version 1 (RFC 9001, section 5.2).
var quicSalt = []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}

// quicCrypto appends a CRYPTO frame (RFC 9000, section 19.6).
func quicCrypto(dst []byte, offset int, b []byte) []byte {
	dst = append(dst, 6)
	dst = binary.BigEndian.AppendUint32(dst, 0x80000000|uint32(offset))
	dst = binary.BigEndian.AppendUint16(dst, 0x4000|uint16(len(b)))
	return append(dst, b...)
}

// quicInitial is a client's Initial packet in a datagram of at least 1,200 bytes
// (RFC 9001, section 5).
func quicInitial(id []byte, number uint16, frames []byte) []byte {
	must := func(b []byte, err error) []byte {
		if err != nil {
			panic(err) // only of a FIPS mode that forbids the algorithm
		}
		return b
	}
	expand := func(secret []byte, label string, n int) []byte {
		info := append([]byte{0, byte(n), byte(len(label) + 6)}, "tls13 "+label...)
		return must(hkdf.Expand(sha256.New, secret, string(append(info, 0)), n))
	}
	client := expand(must(hkdf.Extract(sha256.New, id, quicSalt)), "client in", 32)
	key, iv, hp := expand(client, "quic key", 16), expand(client, "quic iv", 12), expand(client, "quic hp", 16)

	const numberLength, tag = 2, 16
	header := []byte{0xc0 | numberLength - 1, 0, 0, 0, 1, byte(len(id))}
	header = append(append(header, id...), 0, 0) // no Source Connection ID, no token
	body := max(len(frames), 1200-len(header)-2-numberLength-tag)
	header = binary.BigEndian.AppendUint16(header, 0x4000|uint16(numberLength+body+tag))
	at := len(header)
	header = binary.BigEndian.AppendUint16(header, number)
	plain := append(frames[:len(frames):len(frames)], make([]byte, body-len(frames))...)
	iv[10] ^= byte(number >> 8)
	iv[11] ^= byte(number)
	block, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCM(block)
	packet := gcm.Seal(header, iv, plain, header)
	mask := make([]byte, 16)
	protect, _ := aes.NewCipher(hp)
	protect.Encrypt(mask, packet[at+4:at+20])
	packet[0] ^= mask[0] & 0x0f
	packet[at] ^= mask[1]
	packet[at+1] ^= mask[2]
	return packet
}
