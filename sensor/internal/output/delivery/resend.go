package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/outage"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// A dead letter that is to be sent again is marked where it lies, and stays there until
// it has another fate: so it is in one place at all times, whoever crashes. It does not
// go through the queue, as other outputs have that record already. A file tells the
// engine of it, with another text for each request; no letter is marked without it.

// requestFile is the name of that file.
const requestFile = "dead.again"

// SendAgain marks the letters for which is holds, and returns how many of them were not
// marked yet. The engine that has the spool open sends them soon, or else the next one
// that has their outputs. A letter that is delivered is removed; one that is refused
// again stays, with the new reason and without the mark.
//
// The folder must belong to the user of this process: the engine could not use the files
// of another one.
func (d *DeadLetters) SendAgain(is func(*DeadLetter) bool) (marked int, err error) {
	info, err := os.Stat(d.dir)
	if err != nil {
		return 0, fmt.Errorf("mark dead letters: %w", err)
	}
	if user, mine := ownfile.Owner(info); !mine {
		return 0, fmt.Errorf("mark dead letters: %s belongs to another user (%d): run this as that user", d.dir, user)
	}
	err = d.locked(func() error {
		text := strconv.FormatInt(time.Now().UnixNano(), 10)
		if err := replaceFile(filepath.Join(d.dir, requestFile), []byte(text)); err != nil {
			return err
		}
		for q := range spool.Queues {
			for _, path := range d.paths(q) {
				n, err := rewriteLetters(path, func(l *DeadLetter, line []byte) []byte {
					if l.Again || !is(l) {
						return line
					}
					l.Again = true
					next, err := json.Marshal(l)
					if err != nil {
						return line // it was read from JSON, so this cannot be
					}
					return append(next, '\n')
				})
				marked += n
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return marked, fmt.Errorf("mark dead letters: %w", err)
	}
	return marked, nil
}

// requested returns the text of the latest request, empty when there is none. When it is
// another one than before, it waits until all marks are there that belong to it.
func (d *DeadLetters) requested(before string) string {
	text := d.request()
	if text != before {
		if err := d.locked(func() error { text = d.request(); return nil }); err != nil {
			return before // it is looked at again
		}
	}
	return text
}

func (d *DeadLetters) request() string {
	f, err := ownfile.Open(filepath.Join(d.dir, requestFile), os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxRequest))
	return string(text)
}

// dropRequest removes the file of requests unless letters are marked.
func (d *DeadLetters) dropRequest() error {
	return d.locked(func() error {
		for l, err := range d.All() {
			if err == nil && l.Again {
				return nil
			}
		}
		if err := os.Remove(filepath.Join(d.dir, requestFile)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// marked returns marked letters of an output in a queue, the oldest first, as many as
// limits allow for one request.
func (d *DeadLetters) marked(q spool.Queue, name string, limits Limits) (letters []DeadLetter, err error) {
	size := 0
	for _, path := range d.paths(q) {
		more := eachLetter(path, func(l DeadLetter, e error) bool {
			if e != nil || !l.Again || l.Output != name {
				return true // what is no letter is not marked
			}
			size += len(l.Document)
			if len(letters) > 0 && size > limits.Bytes {
				return false
			}
			letters = append(letters, l)
			return len(letters) < limits.Records
		})
		if !more {
			break
		}
	}
	return letters, nil
}

// resend sends the dead letters of the queue that are marked, whenever the request has
// another text, until the engine is closed. What is marked for an output that is not
// there waits for it.
func (l *lane) resend() {
	answered := ""
	var o outage.Outage
	for {
		if text := l.engine.dead.requested(answered); text != answered {
			if text == "" || l.resendAll(&o) {
				answered = text
			}
		}
		t := time.NewTimer(l.engine.poll)
		select {
		case <-t.C:
		case <-l.engine.closing:
			t.Stop()
			return
		case <-l.work.Done():
			t.Stop()
			return
		}
	}
}

// resendAll sends all marked letters. It reports false when it could not, and there is
// no time to wait until it can.
func (l *lane) resendAll(o *outage.Outage) bool {
	limits := l.limits
	for {
		letters, err := l.engine.dead.marked(l.queue, l.Name, limits)
		if err == nil && len(letters) == 0 {
			o.Works()
			if err := l.engine.dead.dropRequest(); err != nil {
				l.engine.log.Warn(l.Name+": dead letters cannot be read", "err", err)
			}
			return true
		}
		var t *Trouble
		if err != nil {
			t = &Trouble{Class: "dead letters", Err: err}
		} else {
			select {
			case l.slots <- struct{}{}:
			case <-l.work.Done():
				return false
			}
			t = l.sendAgain(letters)
			<-l.slots
		}
		switch {
		case t == nil:
			limits = l.limits
			continue
		case t.Split:
			limits.Records = max(len(letters)/2, 1)
			continue
		case l.work.Err() != nil:
			return false
		case o.Fails(t.Class):
			l.engine.log.Warn(l.Name+": dead letters wait to be sent again", "address", l.Destination.String(), "err", t.Err)
		}
		select {
		case <-l.engine.closing:
			return false
		default:
			if !l.pause(max(t.After, l.engine.backoff.Slow), false) {
				return false
			}
		}
	}
}

// sendAgain sends letters in one request, and settles those that have another fate
// then.
func (l *lane) sendAgain(letters []DeadLetter) *Trouble {
	var records []*output.Record
	var sent []int // index of the letter of each record
	fates := make([]Verdict, len(letters))
	for i := range letters {
		r, err := letters[i].Record()
		if err != nil {
			fates[i] = Verdict{Fate: Dead, Reason: Reason(err.Error())}
			continue
		}
		records, sent = append(records, r), append(sent, i)
	}
	var t *Trouble
	if len(records) > 0 {
		l.mu.Lock()
		l.stats.Requests++
		l.mu.Unlock()
		got := make([]Verdict, len(records))
		t = l.Destination.Send(l.work, records, got)
		if t != nil && t.Split && len(records) == 1 {
			got[0], t = Verdict{Fate: Dead, Reason: Reason(t.Err.Error())}, nil
		}
		for i, v := range got {
			fates[sent[i]] = v
		}
	}
	settled := map[string]bool{} // by id
	var dead []DeadLetter
	resent := 0
	for i, v := range fates {
		letter := letters[i]
		switch v.Fate {
		case Delivered, Duplicate:
			resent++
		case Dead, Skipped:
			if v.Fate == Skipped {
				v.Reason = "the output has no form for records of this kind"
			}
			letter.Time, letter.Status, letter.Reason, letter.Again = time.Now().UTC().Truncate(time.Millisecond), v.Status, v.Reason, false
			dead = append(dead, letter)
		default:
			if t == nil {
				t = &Trouble{Class: fmt.Sprint("status ", v.Status), Err: reasonOf(v)}
			}
			continue
		}
		settled[letter.ID] = true
	}
	if len(settled) == 0 {
		return t
	}
	// A crash between the two leaves a letter that is marked and was refused: at worst it
	// is sent once more.
	lost, err := 0, error(nil)
	if len(dead) > 0 {
		lost, err = l.engine.dead.add(l.queue, dead)
	}
	if err == nil {
		_, err = l.engine.dead.Remove(func(x *DeadLetter) bool { return x.Again && x.Output == l.Name && settled[x.ID] })
	}
	if err != nil {
		return &Trouble{Class: "dead letters", Err: err}
	}
	l.mu.Lock()
	l.stats.Resent += uint64(resent)
	l.stats.GivenUp += uint64(lost)
	l.mu.Unlock()
	if resent > 0 {
		l.engine.log.Info(l.Name+": dead letters delivered", "address", l.Destination.String(), "records", resent)
	}
	if len(dead) > 0 {
		l.engine.log.Error(l.Name+": dead letters refused again", "records", len(dead), "file", l.engine.dead.path(l.queue), "reason", dead[0].Reason)
	}
	return t
}
