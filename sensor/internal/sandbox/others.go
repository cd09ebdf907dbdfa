//go:build !linux

package sandbox

import (
	"errors"
	"fmt"
	"runtime"
)

var errHere = fmt.Errorf("watch interfaces on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func confine(Policy) (Report, error) { return Report{}, errHere }

// Opener is a process that opens packet sockets: on Linux only.
type Opener struct{}

// StartOpener returns an error: only Linux has packet sockets.
func StartOpener() (*Opener, error) { return nil, errHere }

// Socket returns an error.
func (*Opener) Socket() (int, error) { return 0, errHere }

// Close does nothing.
func (*Opener) Close() error { return nil }

// IsOpener reports whether this process is an opener: never here.
func IsOpener() bool { return false }

// Serve returns the exit status of a process that cannot do its work.
func Serve() int { return 1 }
