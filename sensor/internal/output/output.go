// Package output turns handshakes and rule matches into records, and delivers
// them: as JSON lines, on a terminal, to Elasticsearch.
package output

import "context"

// Dataset is the kind of a record, the last part of event.dataset. Its number is
// part of the spool's files, so that a new dataset gets the next number.
type Dataset uint8

// The datasets.
const (
	Handshake   Dataset = iota // a handshake
	Certificate                // a certificate, complete, told once a day
	Alert                      // a rule that matched a handshake, complete
	Stats                      // the counters of the program
	Sighting                   // a certificate that was not seen on its server before
	Hello                      // what a kind of client offers, told once a day

	// FullHandshake is a handshake that repeats certificates and hello as alerts do,
	// for an output that has no other record to look them up in. It is another form
	// of Handshake: the same event, with the same id.
	FullHandshake

	Datasets // how many datasets there are
)

// String is the name of d, such as "handshake".
func (d Dataset) String() string {
	return [...]string{"handshake", "certificate", "alert", "stats", "sighting", "hello", "full_handshake"}[d]
}

// Form is d, or the dataset that d is another form of: event.dataset has its name.
func (d Dataset) Form() Dataset {
	if d == FullHandshake {
		return Handshake
	}
	return d
}

// Records is the set of all that there is to say, each thing in one form.
const Records = Set(1<<Datasets-1) &^ (1 << FullHandshake)

// Options say which records are made and what they hold.
type Options struct {
	Datasets  Set
	Constants bool              // records hold the members that are the same in all records of their dataset
	Labels    map[string]string // of the operator, in each record

	// Evidence returns where the evidence of an alert is to be, by its event.id; nil
	// without evidence. It is no part of what an id is made of.
	Evidence func(id string) string
}

// Record is one encoded record.
type Record struct {
	Dataset Dataset
	ID      string // event.id, 32 hex digits: the same event always has the same
	Time    int64  // @timestamp, nanoseconds since the Unix epoch, UTC
	JSON    []byte // one JSON object on one line, without a line feed
}

// Output takes records in order.
//
// Write is called from one goroutine; the record and its bytes are lent until
// it returns. An error means that the record was not accepted. Close delivers
// what was accepted, as far as ctx allows. Its error names what it could not deliver.
type Output interface {
	Write(r *Record) error
	Close(ctx context.Context) error
}
