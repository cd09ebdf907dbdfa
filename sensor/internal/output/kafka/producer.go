package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// flightID is a record in a client. An event has the same id in each of its forms.
type flightID struct {
	dataset output.Dataset
	id      string
}

// flight is what became of a record that the client took.
type flight struct {
	done atomic.Bool
	err  error // of a record that is done
}

// producer writes the records of one queue.
//
// What the client took stays with it until the brokers have answered, also when Send
// no longer waits: only the client can offer a batch again under its number. When the
// engine sends the records again, Send waits for those that are under way. The client
// retries without limit for the same reason. When its limits are reached it gives up
// batches that an earlier request may have written, and nobody would notice when they
// come again.
type producer struct {
	d *Destination

	sending sync.Mutex // held during send
	client  *kgo.Client
	healthy bool // the last request went well
	flights map[flightID]*flight
	ids     map[string][16]byte // of topics, by name
}

func (p *producer) send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	p.sending.Lock()
	defer p.sending.Unlock()
	limited, cancel := context.WithTimeout(ctx, p.d.timeout)
	defer cancel()
	if !p.healthy {
		// What is wrong with addresses, TLS, login and topics shows at once, and before
		// the client takes anything.
		if _, err := p.check(limited, records); err != nil {
			return explain(err, p.d.cfg.Encrypt)
		}
	}
	p.healthy = false
	taken := p.take(records, verdicts)
	flushed := p.client.Flush(limited)
	t := p.judge(records, verdicts)
	switch {
	case t == nil && ctx.Err() != nil:
		t = explain(ctx.Err(), p.d.cfg.Encrypt)
	case t == nil && flushed != nil:
		t = explain(p.reason(ctx, records), p.d.cfg.Encrypt)
	case t == nil && !taken:
		t = explain(errUnacknowledged, p.d.cfg.Encrypt)
	case t != nil && t.Slow && p.client.BufferedProduceRecords() == 0:
		// The client keeps some errors: it does not ask for the number of a producer
		// again after that was refused.
		p.renew()
	}
	p.healthy = t == nil
	return t
}

// take gives the client the records that it does not have yet, and reports whether it
// has all of them now. Records that are too large are dead.
func (p *producer) take(records []*output.Record, verdicts []delivery.Verdict) bool {
	size := int64(0)
	var fresh []*output.Record
	current := make(map[flightID]*flight, len(records))
	for i, r := range records {
		id := flightID{r.Dataset, r.ID}
		switch {
		case len(r.JSON)+messageOverhead > p.d.cfg.MaxMessageBytes:
			verdicts[i] = delivery.Verdict{Fate: delivery.Dead,
				Reason: fmt.Sprintf("the record has %d bytes, and max_message_bytes allows for %d", len(r.JSON), p.d.cfg.MaxMessageBytes-messageOverhead)}
			continue
		case current[id] != nil:
		case p.flights[id] != nil:
			current[id] = p.flights[id]
		default:
			current[id] = &flight{}
			fresh = append(fresh, r)
			size += int64(len(r.JSON) + messageOverhead)
		}
	}
	// Nobody asks any more for what was done without being asked for.
	for id, f := range p.flights {
		if current[id] == nil && f.done.Load() {
			delete(p.flights, id)
		}
	}
	// All or none, for the sake of their order.
	if p.client.BufferedProduceBytes()+size > maxBuffered || p.client.BufferedProduceRecords()+int64(len(fresh)) > 2*maxRecords {
		return false
	}
	for _, r := range fresh {
		id := flightID{r.Dataset, r.ID}
		f := current[id]
		p.flights[id] = f
		p.client.Produce(context.Background(), p.d.message(r), func(_ *kgo.Record, err error) {
			f.err = err
			f.done.Store(true)
		})
	}
	return true
}

// judge says what became of the records, and what the gravest trouble is of those that
// were refused.
func (p *producer) judge(records []*output.Record, verdicts []delivery.Verdict) (worst *delivery.Trouble) {
	answered := make(map[flightID]bool, len(records))
	for i, r := range records {
		id := flightID{r.Dataset, r.ID}
		f := p.flights[id]
		if f == nil || !f.done.Load() || verdicts[i].Fate == delivery.Dead {
			continue
		}
		again := answered[id] // an event that was told twice
		answered[id] = true
		switch {
		case f.err == nil && again:
			verdicts[i].Fate = delivery.Duplicate
			continue
		case f.err == nil:
			verdicts[i].Fate = delivery.Delivered
			continue
		}
		t := explain(f.err, p.d.cfg.Encrypt)
		verdicts[i].Reason = delivery.Reason(t.Err.Error())
		switch {
		case t.Split && len(records) == 1:
			verdicts[i].Fate = delivery.Dead
			continue
		case t.Slow:
			verdicts[i].Fate = delivery.Blocked
		}
		if worst == nil || rank(t) > rank(worst) {
			worst = t
		}
	}
	for id := range answered {
		delete(p.flights, id)
	}
	return worst
}

// rank orders troubles: smaller requests help at once, and others wait for somebody.
func rank(t *delivery.Trouble) int {
	switch {
	case t.Split:
		return 2
	case t.Slow:
		return 1
	}
	return 0
}

// check connects, and asks for the topics of records. The error is the first one that
// it meets. What a topic lacks that records wait for may be no error, and is returned.
func (p *producer) check(ctx context.Context, records []*output.Record) (lacks []string, err error) {
	if err := p.client.Ping(ctx); err != nil { // at once, where a request would be retried
		return nil, err
	}
	r := kmsg.NewPtrMetadataRequest()
	r.AllowAutoTopicCreation = false
	var asked []string
	for _, record := range records {
		if name := p.d.topics[record.Dataset]; !slices.Contains(asked, name) {
			asked = append(asked, name)
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = kmsg.StringPtr(name)
			r.Topics = append(r.Topics, topic)
		}
	}
	answer, err := r.RequestWith(ctx, p.client)
	if err != nil {
		return nil, err
	}
	for _, t := range answer.Topics {
		if t.Topic == nil || !slices.Contains(asked, *t.Topic) {
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, fmt.Errorf("topic %s: %w", *t.Topic, err)
		}
		// Somebody has deleted the topic and made it again. The client would go on
		// asking for the old one; what it holds for that is gone with it.
		if id, ok := p.ids[*t.Topic]; ok && id != t.TopicID {
			p.renew()
		}
		p.ids[*t.Topic] = t.TopicID
		leaderless, behind := 0, 0
		for _, partition := range t.Partitions {
			switch {
			case partition.Leader < 0:
				leaderless++
			case len(partition.ISR) < len(partition.Replicas):
				behind++
			}
		}
		if leaderless+behind > 0 {
			lacks = append(lacks, fmt.Sprintf("of %d partitions of topic %s, %d have no leader and %d have replicas that are not in sync",
				len(t.Partitions), *t.Topic, leaderless, behind))
		}
	}
	return lacks, nil
}

// reason is why records were not acknowledged in time, as far as the brokers say.
func (p *producer) reason(ctx context.Context, records []*output.Record) error {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	lacks, err := p.check(ctx, records)
	if err != nil {
		return err
	}
	if lacks != nil {
		return fmt.Errorf("%w: %s", errUnacknowledged, strings.Join(lacks, "; "))
	}
	return errUnacknowledged
}

// renew makes the client anew. It forgets what the old one holds, which goes again.
func (p *producer) renew() {
	client, err := p.d.client()
	if err != nil {
		return // the same options made one before
	}
	p.client.Close()
	p.client = client
	clear(p.ids)
	clear(p.flights)
}

func (p *producer) close() {
	p.sending.Lock()
	defer p.sending.Unlock()
	p.client.Close()
}
