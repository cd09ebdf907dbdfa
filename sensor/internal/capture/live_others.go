//go:build !linux

package capture

import (
	"errors"
	"fmt"
	"runtime"
)

func openLive(opt LiveOptions) (*Live, error) {
	return nil, fmt.Errorf("open %s: live capture on %s: %w", opt.Interfaces[0], runtime.GOOS, errors.ErrUnsupported)
}
