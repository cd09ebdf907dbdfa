package event

// Proof is what the server signed in a handshake to prove that it holds the key of
// its certificate. Whether the signature is good is not looked at here.
type Proof struct {
	// Missing says why there is no signature to look at; ProofSeen where there is one.
	Missing ProofMissing
	// Scheme is the SignatureScheme (RFC 8446, section 4.2.3) or, in TLS 1.2, the hash
	// and signature algorithms that it stands for (RFC 5246, section 7.4.1.4.1). 0
	// stands for what the versions before sign with: MD5 and SHA-1 together for RSA
	// (RFC 4346, section 7.4.3), SHA-1 for DSA and ECDSA.
	Scheme uint16
	// Signed is what the signature is over. Up to TLS 1.2 it is both randoms and the
	// parameters of the key exchange (RFC 8422, section 5.4; RFC 5246, section 7.4.3),
	// in TLS 1.3 the content of a CertificateVerify (RFC 8446, section 4.4.3).
	Signed    []byte
	Signature []byte
}

// ProofMissing says why a handshake proves nothing about the key.
type ProofMissing uint8

// The reasons. The first is the zero value, so that a handshake about which nobody
// has said anything has not been looked at.
const (
	ProofNotSeen   ProofMissing = iota // the message did not come
	ProofSeen                          // there is a signature
	ProofCut                           // bytes of the message, or of the hellos, are missing
	ProofRSA                           // RSA key exchange: nothing is signed
	ProofAnonymous                     // the suite has no signature: anonymous, pre-shared key, SRP
	ProofResumed                       // a resumed session proves nothing anew
	ProofEncrypted                     // TLS 1.3 without keys
	ProofMalformed                     // the message cannot be read, or came twice and differs
	ProofStatic                        // static Diffie-Hellman, or GOST: the key of the certificate signs nothing
	ProofForeign                       // signed in a way that is not read: TLCP, or a draft of TLS 1.3
)

// MaxFlight is how many records of a server's first encrypted flight have their
// lengths kept.
const MaxFlight = 16

// Flight is the lengths of the first encrypted records that the server of a TLS 1.3
// handshake over a stream sent before the client answered: EncryptedExtensions, perhaps
// CertificateRequest, Certificate, CertificateVerify and Finished, in a record each
// or several together. They stay visible where their contents are encrypted.
type Flight struct {
	// Lengths are those of the encrypted fragments (RFC 8446, section 5.2), with the
	// content type, the padding and the authentication tag, in the order sent. They
	// are the first that were sent: none is missing between them, and none before
	// them. Where the client's answer was not seen, there may be some among them that
	// were sent after it.
	Lengths [MaxFlight]uint16
	Records uint8 // how many of Lengths are set
	More    bool  // there were more than that
	Whole   bool  // these are all, and the client's answer was seen
}
