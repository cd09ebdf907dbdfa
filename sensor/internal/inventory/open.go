package inventory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// format is the version of what is in the buckets.
const format = 1

// ErrInUse is the error of an inventory that another process has open.
var ErrInUse = errors.New("in use")

// files are what an inventory has beside the database.
type files struct {
	lock      *os.File // nil for one that only this process knows of
	temporary string   // to remove; empty for none
}

func (f *files) close(db *bolt.DB) error {
	var err error
	if db != nil {
		err = guard(db.Close)
	}
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
		f.lock = nil
	}
	if f.temporary != "" {
		_ = os.Remove(f.temporary) // it may be gone already
	}
	return err
}

// Open opens the inventory in the file at path, or makes one there. A file that is
// damaged is renamed, and another one is made of all that can still be read; the log says
// so. A file that never was an inventory is an error, and stays what it is. ErrInUse is
// the error where another process has it open.
func Open(path string, o Options) (*Store, error) {
	if o.Size > MaxSize {
		return nil, fmt.Errorf("open the inventory %s: it may take %d bytes at most, and is to take %d", path, int64(MaxSize), o.Size)
	}
	s, err := newStore(path, o), error(nil)
	if s.files.lock, err = lockFile(path, o.Holder); err != nil {
		return nil, fmt.Errorf("open the inventory %s: %w", path, err)
	}
	if err = s.openDatabase(); err != nil {
		_ = s.files.close(s.db.Load())
		return nil, fmt.Errorf("open the inventory %s: %w", path, err)
	}
	if o.Serve {
		s.serve()
	}
	go s.write()
	return s, nil
}

// Temporary returns an inventory that is gone when it is closed. It is kept in a file,
// as a million certificates must not be in memory, and nothing waits for the disk.
func Temporary() (*Store, error) {
	file, err := os.CreateTemp("", "oddcert-inventory-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary inventory: %w", err)
	}
	_ = file.Close() // nothing was written
	s := newStore(file.Name(), Options{Block: true})
	s.files.temporary = file.Name()
	if err := s.openDatabase(); err != nil {
		_ = s.files.close(s.db.Load())
		return nil, fmt.Errorf("make a temporary inventory: %w", err)
	}
	go s.write()
	return s, nil
}

func newStore(path string, o Options) *Store {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{path: path, options: o, log: o.Log, files: new(files), wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	s.cache.reset()
	s.changeCost = 2 * os.Getpagesize()
	s.cache.bad = s.bad
	s.published.Store(new(Totals))
	return s
}

// lockFile locks the file beside an inventory that says who has it open.
func lockFile(path, holder string) (*os.File, error) {
	if info, err := os.Lstat(path); err == nil {
		switch _, mine := ownfile.Owner(info); {
		case !info.Mode().IsRegular():
			return nil, errors.New("it is not a file: name another place")
		case !mine && os.Geteuid() != 0:
			return nil, errors.New("it belongs to another user")
		}
	}
	f, err := ownfile.Open(path+".lock", os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err = ownfile.TryLock(f); err != nil {
		if errors.Is(err, ownfile.ErrInUse) {
			err = holderOf(f)
		}
		return nil, errors.Join(err, f.Close())
	}
	text := fmt.Sprintf("process %d, %s, since %s\n", os.Getpid(), holder, time.Now().UTC().Format(time.RFC3339))
	if holder == "" {
		text = strings.ReplaceAll(text, ", , ", ", ")
	}
	if err = f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(text), 0) // a full disk is no reason: it only says who it is
	}
	return f, nil
}

// holderOf is an error that says who has locked f.
func holderOf(f *os.File) error {
	by, _ := io.ReadAll(io.LimitReader(f, 200))
	if text := strings.TrimSpace(strings.Map(printable, string(by))); text != "" {
		return fmt.Errorf("%w by %s", ErrInUse, text)
	}
	return fmt.Errorf("%w by another process", ErrInUse)
}

func printable(r rune) rune {
	if strconv.IsPrint(r) {
		return r
	}
	return -1
}

// openDatabase opens the database at its path. It is looked at first.
func (s *Store) openDatabase() error {
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		if err == nil && s.files.temporary == "" {
			s.log.Warn("inventory: the file was empty", "path", s.path)
		}
		return s.create()
	case err != nil:
		return err
	}
	wrong := s.examine(true)
	switch {
	case wrong == nil:
		return s.load()
	case errors.Is(wrong, errForeign), errors.Is(wrong, errTooLarge), errors.Is(wrong, fs.ErrPermission):
		return wrong
	}
	return s.replace(wrong)
}

// errForeign is the error of a file that never was an inventory.
var errForeign = errors.New("it is not an inventory: name another file")

// errFormat is the error of an inventory that another version has written.
var errFormat = errors.New("another version of oddcert has written it")

// examine says what is wrong with the file: with its beginning, or with all of it.
func (s *Store) examine(all bool) error {
	f, err := ownfile.Open(s.path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := openImage(f, info.Size())
	if err == nil && all {
		err = m.check()
	}
	if err != nil && isForeign(f, info.Size()) {
		return errForeign
	}
	return err
}

// isForeign reports whether a file that is no database has never been one: it begins as
// none does, and nothing in it is an entry.
func isForeign(r io.ReaderAt, size int64) bool {
	begins := make([]byte, pageHeader, pageHeader+4) // as page 0 does
	binary.NativeEndian.PutUint16(begins[8:], metaPage)
	begins = binary.NativeEndian.AppendUint32(begins, metaMagic)
	begin := make([]byte, min(size, pageHeader+4))
	if _, err := r.ReadAt(begin, 0); err != nil || len(bytes.Trim(begin, "\x00")) == 0 || bytes.HasPrefix(begins, begin) {
		return false // or nobody can tell
	}
	err := salvage(r, size, int64(os.Getpagesize()), func(bucket, []byte, []byte, uint64) error { return errStop })
	return err == nil
}

// database opens the file of the database.
func (s *Store) database() (*bolt.DB, error) {
	o := &bolt.Options{
		Timeout: lockPatience, FreelistType: bolt.FreelistMapType, OpenFile: ownfile.Open,
		NoSync: s.files.temporary != "", NoGrowSync: s.files.temporary != "",
	}
	if runtime.GOOS != "windows" && strconv.IntSize == 64 {
		// Whoever reads for long keeps the file from being mapped anew, and so from
		// being written. It is address space, no memory. Windows would make the file
		// as large.
		o.InitialMmapSize = int(s.options.Size + s.options.Size/2)
	}
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(s.path, 0o640, o)
		return err
	})
	if errors.Is(err, bolt.ErrTimeout) {
		err = fmt.Errorf("%w by a process that reads it", ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	db.AllocSize = growth
	return db, nil
}

// create makes an empty database.
func (s *Store) create() error {
	db, err := s.database()
	if err != nil {
		return err
	}
	s.db.Store(db)
	s.totals = Totals{}
	err = guard(func() error {
		return db.Update(func(tx *bolt.Tx) error {
			for b := general; b < buckets; b++ {
				if _, err := tx.CreateBucketIfNotExists(b.name()); err != nil {
					return err
				}
			}
			version := uint64(format)
			w := writer{tx: tx, id: uint64(tx.ID()), codec: new(codec)}
			return w.put(general, []byte("format"), fieldsFunc(func(c *codec) { c.uint(&version) }))
		})
	})
	if err == nil && s.files.temporary == "" {
		err = syncFolder(filepath.Dir(s.path))
	}
	s.publish(&s.totals)
	return err
}

// fieldsFunc is an entry of one field.
type fieldsFunc func(*codec)

func (f fieldsFunc) fields(c *codec) { f(c) }

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return ownfile.SyncFolder(d)
}

// load opens a database that is good.
func (s *Store) load() error {
	db, err := s.database()
	if err != nil {
		return err
	}
	s.db.Store(db)
	err = guard(func() error { return db.View(s.readGeneral) })
	if errors.Is(err, errFormat) || isDamage(err) {
		_ = guard(db.Close) // nothing was written
		s.db.Store(nil)
		return s.replace(err)
	}
	s.publish(&s.totals)
	return err
}

// readGeneral reads the format and the totals.
func (s *Store) readGeneral(tx *bolt.Tx) error {
	for b := general; b < buckets; b++ {
		if tx.Bucket(b.name()) == nil {
			return fmt.Errorf("%w: there is no bucket %s", errDamage, bucketNames[b])
		}
	}
	read := func(key string, fields func(*codec)) bool {
		value := tx.Bucket(general.name()).Get([]byte(key))
		data, _, ok := unseal(general, []byte(key), value)
		return ok && decode(data, fields)
	}
	var version uint64
	if !read("format", func(c *codec) { c.uint(&version) }) {
		return fmt.Errorf("%w: it does not say its format", errDamage)
	}
	if version != format {
		return fmt.Errorf("%w: its format is %d, this one's %d", errFormat, version, format)
	}
	if !read("totals", s.totals.fields) {
		s.totals = Totals{}
	}
	s.lost.Store(0)
	return nil
}

// replace keeps a damaged file aside, and makes another one of what can be read of it.
func (s *Store) replace(wrong error) error {
	aside := s.path + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	for i := 2; ; i++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = strings.TrimRight(aside, "0123456789-") + "-" + strconv.Itoa(i)
	}
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("keep it aside, as it is damaged (%w): %w", wrong, err)
	}
	s.log.Error("inventory: it is damaged, and kept aside: what can be read of it goes into another one", "path", s.path, "kept", aside, "error", wrong)
	if err := s.create(); err != nil {
		return err
	}
	if errors.Is(wrong, errFormat) {
		s.log.Error("inventory: it begins anew, as another version has written the one before", "path", s.path, "kept", aside)
		return nil
	}
	n, err := s.recover(aside)
	if err != nil {
		s.log.Error("inventory: what was damaged could not be read to its end", "path", aside, "error", err)
	}
	t := &s.totals
	s.log.Warn("inventory: recovered from the damaged one", "path", s.path, "kept", aside, "values", n,
		"certificates", t.Certificates, "servers", t.Servers, "sightings", t.Sightings, "contacts", t.Contacts, "alerts", t.Alerts)
	return nil
}

// rebuild is replace for a database that is in use, if its file is damaged. It may be that
// a finding was not understood.
func (s *Store) rebuild(wrong error) {
	if time.Since(s.examined) < examineInterval {
		return
	}
	s.examined = time.Now()
	s.log.Error("inventory: it could not be read or written; its file is looked at", "path", s.path, "error", wrong)
	if damage := s.examine(true); damage == nil {
		return
	}
	s.rebuilding.Store(true)
	defer s.rebuilding.Store(false)
	if db := s.db.Load(); db != nil {
		_ = guard(db.Close) // what it says is no news
	}
	if err := s.replace(wrong); err != nil {
		s.log.Error("inventory: no other one could be made", "path", s.path, "error", err)
	}
	for _, slot := range s.cache.slots { // what was written may be gone
		if slot.fresh = slot.dirty; !slot.dirty {
			s.cache.drop(slot)
		}
	}
}

// recover reads what a damaged file has into the database, and returns how many values
// that were.
func (s *Store) recover(from string) (n int, err error) {
	f, err := ownfile.Open(from, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	type value struct {
		b          bucket
		key, value []byte
	}
	var list []value
	size := 0
	db := s.db.Load()
	flush := func() error {
		err := guard(func() error {
			return db.Update(func(tx *bolt.Tx) error {
				for _, v := range list {
					to := tx.Bucket(v.b.name())
					if old := to.Get(v.key); old != nil {
						_, was, _ := unseal(v.b, v.key, old)
						if _, is, _ := unseal(v.b, v.key, v.value); is < was {
							continue
						}
					} else {
						n++
					}
					if err := to.Put(v.key, v.value); err != nil {
						return err
					}
				}
				return nil
			})
		})
		list, size = list[:0], 0
		return err
	}
	pageSize := int64(os.Getpagesize())
	if m, err := openImage(f, info.Size()); err == nil {
		pageSize = m.pageSize
	}
	err = salvage(f, info.Size(), pageSize, func(b bucket, key, v []byte, _ uint64) error {
		if b == general && string(key) == "format" || len(key) == 0 {
			return nil
		}
		list = append(list, value{b, bytes.Clone(key), bytes.Clone(v)})
		if size += len(key) + len(v); len(list) >= 1<<14 || size > 16<<20 {
			if flush() != nil {
				return errStop
			}
		}
		return nil
	})
	return n, errors.Join(err, flush(), s.complete())
}

// complete makes the indexes and the totals of what is in the other buckets.
func (s *Store) complete() error {
	db := s.db.Load()
	if err := guard(func() error { return db.View(s.readGeneral) }); err != nil {
		return err
	}
	t := &s.totals
	t.Certificates, t.Servers, t.Sightings, t.Contacts, t.Alerts = 0, 0, 0, 0, 0
	type pair struct {
		b          bucket
		key, value []byte
	}
	var list []pair
	flush := func() error {
		err := guard(func() error {
			return db.Update(func(tx *bolt.Tx) error {
				for _, p := range list {
					if err := tx.Bucket(p.b.name()).Put(p.key, p.value); err != nil {
						return err
					}
				}
				return nil
			})
		})
		list = list[:0]
		return err
	}
	add := func(p pair) error {
		if list = append(list, p); len(list) >= 1<<14 {
			return flush()
		}
		return nil
	}
	for range scan[Certificate](s, certificates, nil) {
		t.Certificates++
	}
	if err := s.dropLeftDERs(); err != nil {
		return err
	}
	for range scan[Server](s, servers, nil) {
		t.Servers++
	}
	for v, err := range scan[Sighting](s, sightings, nil) {
		if err == nil {
			t.Sightings++
			err = add(pair{shown, v.shownKey(nil), nil})
		}
		if err != nil {
			return err
		}
	}
	for v, err := range scan[Contact](s, contacts, nil) {
		if err == nil {
			t.Contacts++
			err = add(pair{met, v.metKey(nil), nil})
		}
		if err != nil {
			return err
		}
	}
	for v, err := range scan[Alert](s, alerts, nil) {
		if err == nil {
			t.Alerts++
			err = add(pair{alertTimes, []byte(v.ID), binary.BigEndian.AppendUint64(nil, uint64(v.Time))})
		}
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	s.dirtyTotals = true
	s.publish(t)
	return nil
}

// dropLeftDERs removes the bytes of certificates whose entries are gone or have others.
func (s *Store) dropLeftDERs() error {
	db := s.db.Load()
	var from []byte
	for more := true; more; {
		more = false
		err := guard(func() error {
			return db.Update(func(tx *bolt.Tx) error {
				var left [][]byte
				n, entries, c := 0, tx.Bucket(certificates.name()), tx.Bucket(ders.name()).Cursor()
				for k, v := c.Seek(from); k != nil; k, v = c.Next() {
					if n++; n > chunk {
						from, more = bytes.Clone(k), true
						break
					}
					data, _, _ := unseal(ders, k, v)
					id := sha256.Sum256(data)
					if key, ok := derKey(id[:], entries.Get(id[:])); !ok || !bytes.Equal(key, k) {
						left = append(left, bytes.Clone(k))
					}
				}
				for _, k := range left {
					if err := tx.Bucket(ders.name()).Delete(k); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func decodeTime(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }
