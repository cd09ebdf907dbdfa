package inventory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// While a sensor has an inventory open, nobody else can open its file: what the database
// reads may be written over meanwhile. So the sensor gives a copy, as of one transaction,
// to whoever connects to a Unix socket beside the file: its length, 8 bytes, most
// significant first, and the file. The permissions of the socket say who may.

// socket is the path of the socket beside an inventory.
func socket(path string) string { return path + ".sock" }

// serve lets others read. Where it cannot, they cannot; nothing else depends on it.
func (s *Store) serve() {
	if runtime.GOOS == "windows" {
		return
	}
	// Who has the lock may remove what an earlier process has left.
	if info, err := os.Lstat(socket(s.path)); err == nil && info.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(socket(s.path)) // to listen says why, if it fails
	}
	l, err := net.Listen("unix", socket(s.path))
	if err == nil {
		if err = os.Chmod(socket(s.path), 0o660); err != nil {
			_ = l.Close() // nobody has connected
		}
	}
	if err != nil {
		s.log.Warn("inventory: it cannot be read while it is open", "path", s.path, "error", err)
		return
	}
	serving, stop := context.WithCancel(context.Background())
	s.stopServing = func() { stop(); _ = l.Close() }
	slots := make(chan struct{}, maxReaders)
	s.readers.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if serving.Err() != nil {
					return
				}
				time.Sleep(100 * time.Millisecond) // too many files are open
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				_ = conn.Close() // it says that there is no copy
				continue
			}
			s.readers.Go(func() {
				defer func() { <-slots }()
				defer conn.Close()
				defer context.AfterFunc(serving, func() { _ = conn.Close() })()
				if err := s.copyTo(conn); err != nil && serving.Err() == nil {
					s.log.Warn("inventory: who reads it got no whole copy", "path", s.path, "error", err)
				}
			})
		}
	})
}

// copyTo writes a copy to who has connected.
func (s *Store) copyTo(conn net.Conn) error {
	s.settle()
	if err := conn.SetDeadline(time.Now().Add(servePatience)); err != nil {
		return err
	}
	return guard(func() error {
		return s.db.Load().View(func(tx *bolt.Tx) error {
			if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(tx.Size()))); err != nil {
				return err
			}
			_, err := tx.WriteTo(conn)
			return err
		})
	})
}

// OpenForReading opens the inventory in the file at path to read it: what it is told of is
// lost. The file is not changed. Where a sensor has it open, a copy is read that the
// sensor gives. ErrInUse is the error where another process has it open that gives none.
func OpenForReading(path string) (*Store, error) {
	wrap := func(err error) error { return fmt.Errorf("read the inventory %s: %w", path, err) }
	conn, err := net.DialTimeout("unix", socket(path), lockPatience)
	if err == nil {
		s, err := openCopy(conn, path)
		if err != nil {
			return nil, wrap(err)
		}
		return s, nil
	}
	switch info, err := os.Stat(path); {
	case err != nil:
		return nil, wrap(errors.Unwrap(err))
	case !info.Mode().IsRegular():
		return nil, wrap(errors.New("it is not a file"))
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, wrap(fmt.Errorf("a sensor has it open, and does not let this user read it: %w", err))
	}
	if err := heldBy(path); err != nil {
		return nil, wrap(err)
	}
	s := newStore(path, Options{})
	if err := s.openForReading(); err != nil {
		return nil, wrap(err)
	}
	return s, nil
}

// heldBy says who has an inventory open; nil where nobody has.
func heldBy(path string) error {
	f, err := ownfile.Open(path+".lock", os.O_RDONLY, 0)
	if err != nil {
		return nil // nobody has ever opened it here, or nobody may know
	}
	defer f.Close()
	if err := ownfile.TryLock(f); !errors.Is(err, ownfile.ErrInUse) {
		return nil
	}
	return holderOf(f)
}

// openCopy reads the copy that a sensor gives.
func openCopy(conn net.Conn, path string) (_ *Store, err error) {
	defer conn.Close()
	if err = conn.SetDeadline(time.Now().Add(servePatience)); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "oddcert-inventory-*")
	if err != nil {
		return nil, fmt.Errorf("make a copy: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	var size [8]byte
	if _, err = io.ReadFull(conn, size[:]); err != nil {
		return nil, errors.Join(errors.New("the sensor that has it open gives no copy now: try again"), file.Close())
	}
	want := int64(binary.BigEndian.Uint64(size[:]))
	n, err := io.Copy(file, io.LimitReader(conn, max(want, 0)))
	if err = errors.Join(err, file.Close()); err == nil && n < want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("copy it from the sensor that has it open: %w", err)
	}
	s := newStore(file.Name(), Options{})
	s.files.temporary = file.Name()
	if err = s.openForReading(); err != nil {
		return nil, err
	}
	s.path = path
	return s, nil
}

// openForReading opens the database at its path, and changes nothing.
func (s *Store) openForReading() error {
	if err := s.examine(false); err != nil { // to read takes no more: what is bad is left out
		return err
	}
	err := guard(func() error {
		db, err := bolt.Open(s.path, 0, &bolt.Options{Timeout: lockPatience, ReadOnly: true})
		if errors.Is(err, bolt.ErrTimeout) {
			err = ErrInUse
		}
		if err != nil {
			return err
		}
		s.db.Store(db)
		return db.View(s.readGeneral)
	})
	if err != nil {
		_ = s.files.close(s.db.Load())
		return err
	}
	s.publish(&s.totals)
	s.closing, s.closed = true, true
	close(s.done)
	return nil
}
