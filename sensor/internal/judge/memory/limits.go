package memory

import "time"

// How long things are remembered, in packet time.
const (
	// window is for how many days, that of a handshake included, it counts who
	// showed and saw a key: between six and seven times 24 hours.
	window = 7
	// openVPNFor is how long it is remembered that OpenVPN was seen on a server.
	openVPNFor = 7 * day
	// flaggedFor is how long a server is remembered after its last alert.
	flaggedFor = 30 * day

	day = int64(24 * time.Hour)

	// believed is how many handshakes in a row must be more than a day away from
	// those before them, until the days are counted from there. A single packet
	// with a wrong time must not forget a week.
	believed = 4
)

// What a Memory may hold: at most 48 MiB, to which a test holds it. An attacker
// can make up servers, certificates and names at any rate.
const (
	// maxKeys bounds the keys of which is counted who showed and saw them, at some
	// 150 bytes each.
	maxKeys = 1 << 16
	// maxValueBytes bounds the addresses and names of all keys together.
	maxValueBytes = 12 << 20
	// maxValues bounds the servers, the clients and the names of one key, each. A
	// count of as many means that many or more.
	maxValues = 256
	// maxName is the longest name that is counted. A domain name is no longer (RFC
	// 1035, section 2.3.4); a server_name may have 65,535 bytes.
	maxName = 255

	// maxOpenVPN bounds the servers on which OpenVPN was seen, over both generations,
	// at some 60 bytes each.
	maxOpenVPN = 1 << 15
	// MaxFlagged is how many alerts it is of use to recall.
	MaxFlagged = maxFlagged
	// maxFlagged bounds the servers for which there was an alert, likewise, at some
	// 400 bytes each.
	maxFlagged = 1 << 13
	// maxTold bounds the clients of such servers for which there was a reminder,
	// likewise, at some 70 bytes each. What is forgotten is said again.
	maxTold = 1 << 16
	// maxProofs bounds the leaves on servers that had their key proven on this day,
	// likewise, at some 70 bytes each. What is forgotten is due again.
	maxProofs = 1 << 16

	// proofBurst is how many proofs of keys are due at once, and proofRate how many
	// more in each second: to verify a signature takes some 50 to 200 µs, and a flood of
	// servers must not fill the time of the stage that has the handshakes in order.
	proofBurst = 50
	proofRate  = 10
)
