// Package finding has what the pipeline tells of one handshake, for those who want more
// of it than its records: the inventory, evidence, the page.
package finding

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Finding is one handshake and what was made of it. Findings come in the order of the
// records, from one goroutine. All of it is lent until the call returns, the flow of the
// handshake too, except for certificates, origins, offers and rules, which are shared and
// read-only.
//
// Live, a handshake with alerts can come twice: unfinished, with those alerts, and at
// its end, with those that came since. See [event.Handshake.Unfinished].
type Finding struct {
	Handshake *event.Handshake
	Judged    *judgement.Judgement // never nil; its parts are nil where nothing was asked
	Alerts    []Alert              // in the order of the records
}

// Alert is a rule that matched a handshake.
type Alert struct {
	// ID is event.id of the alert; where Counted is set, that of the alert with which it
	// is counted. It is empty where no alert records are made.
	ID      string
	Match   *rules.Match
	Counted bool   // no record was made of it: it is counted with those like one before
	Record  []byte // the JSON of its record; nil where none was made
	Pack    string // where its pack of evidence is to be; empty without
}
