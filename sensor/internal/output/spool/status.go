package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Status is what the files of a spool say, whether a process has it open or not.
type Status struct {
	Dir     string        `json:"dir"`
	Bytes   int64         `json:"bytes"`   // of all segments
	Queues  []QueueFiles  `json:"queues"`  // alerts, telemetry
	Outputs []OutputFiles `json:"outputs"` // by name, each with the queues of which it has a cursor
}

// QueueFiles is what the segments of a queue hold.
type QueueFiles struct {
	Queue    string `json:"queue"`
	Segments int    `json:"segments"`
	Bytes    int64  `json:"bytes"`
	Records  Counts `json:"records"` // of all outputs, settled and not

	// Damaged is how many places cannot be read. The end of the last segment is none:
	// a block is being written there, or was when its process died.
	Damaged int `json:"damaged"`
}

// OutputFiles is what a queue holds for an output.
type OutputFiles struct {
	Output  string    `json:"output"`
	Queue   string    `json:"queue"`
	Waiting Counts    `json:"waiting"`         // not settled
	Bytes   int64     `json:"bytes"`           // of the blocks that they are in
	Oldest  time.Time `json:"oldest,omitzero"` // @timestamp of the oldest of them
	Cursor  uint64    `json:"cursor"`          // number of the first record that is not settled; 0 when it is not known
	Next    uint64    `json:"next"`            // number of the record after the last one
	Damaged bool      `json:"damaged"`         // the cursor cannot be read: all that is kept will be delivered again
}

// Inspect reads the status of the spool in dir. It changes nothing there, and takes
// no lock: what a process does with the spool meanwhile may be in it or not.
func Inspect(dir string) (*Status, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	in := folder{root}
	defer in.close()
	s := &Status{Dir: dir, Outputs: []OutputFiles{}}
	decoder := newDecoder()
	defer decoder.Close()
	for q := range Queues {
		// The cursors first: what is settled after that counts as waiting, but nothing
		// that waits can be missed.
		files, err := in.names()
		if err == nil {
			err = s.inspect(in, q, files, decoder)
		}
		if err != nil {
			return nil, fmt.Errorf("read spool %s: %w", dir, err)
		}
	}
	slices.SortFunc(s.Outputs, func(a, b OutputFiles) int {
		return cmp.Or(cmp.Compare(a.Output, b.Output), cmp.Compare(a.Queue, b.Queue))
	})
	return s, nil
}

// inspect reads one queue.
func (s *Status) inspect(in folder, which Queue, files []string, decoder *zstd.Decoder) error {
	q := &queue{which: which}
	of := QueueFiles{Queue: which.String()}
	var outputs []*cursorFiles
	for _, file := range files {
		name, queue, ok := cursorOf(file)
		if file == which.String()+".cursor" { // of a spool that only older releases have opened
			name, queue, ok = onlyOutput, which, true
		}
		if !ok || queue != which {
			continue
		}
		c, damaged, err := readCursor(in, file)
		if err != nil {
			return err
		}
		if c.set == 0 {
			c.set = 1<<output.Datasets - 1
		}
		outputs = append(outputs, &cursorFiles{c, OutputFiles{Output: name, Queue: of.Queue, Cursor: c.record, Next: c.next, Damaged: damaged}})
	}
	numbers := q.numbers(files)
	for i, n := range numbers {
		err := of.segment(in, q.file(n), n, i == len(numbers)-1, outputs, decoder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was settled and deleted meanwhile
			return err
		}
	}
	s.Bytes += of.Bytes
	s.Queues = append(s.Queues, of)
	for _, o := range outputs {
		s.Outputs = append(s.Outputs, o.OutputFiles)
	}
	return nil
}

// cursorFiles is a cursor, and what is found that it has not settled.
type cursorFiles struct {
	cursor cursor
	OutputFiles
}

// segment adds what a segment holds.
func (f *QueueFiles) segment(in folder, name string, number uint64, last bool, outputs []*cursorFiles, decoder *zstd.Decoder) error {
	file, err := in.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var sc scanner
	if err := sc.open(file, info.Size(), number); err != nil {
		return err
	}
	if sc.version > formatVersion {
		return fmt.Errorf("%s: format %d is not known to this version", file.Name(), sc.version)
	}
	f.Segments++
	f.Bytes += info.Size()
	for {
		b, skipped, err := sc.next()
		if skipped > 0 && !(err == io.EOF && last) {
			f.Damaged++
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		f.Records.add(b.counts)
		for _, o := range outputs {
			o.block(&b, &sc, decoder)
		}
	}
}

// block adds what a block, which sc has just found, holds for the output.
func (o *cursorFiles) block(b *block, sc *scanner, decoder *zstd.Decoder) {
	o.Next = max(o.Next, b.end())
	waiting := b.counts.of(o.cursor.set)
	if b.end() <= o.cursor.record || waiting.Total() == 0 {
		return
	}
	if b.number < o.cursor.record || o.Oldest.IsZero() {
		records, ok := sc.records(nil, b, decoder)
		if !ok {
			return // the output will skip it
		}
		settled, records, _ := countRecords(records, max(b.number, o.cursor.record)-b.number)
		waiting.subtract(settled.of(o.cursor.set))
		for o.Oldest.IsZero() && len(records) > 0 {
			var r output.Record
			if r, records, ok = cutRecord(records); !ok {
				break
			}
			if o.cursor.set.Has(r.Dataset) {
				o.Oldest = time.Unix(0, r.Time).UTC()
			}
		}
	}
	if waiting.Total() > 0 {
		o.Waiting.add(waiting)
		o.Bytes += b.after - b.offset
	}
}
