//go:build !linux

package doctor

import "errors"

// ReadInterface reads what the kernel says about an interface: on Linux alone.
func ReadInterface(string) (*Interface, error) {
	return nil, errors.New("interfaces can be looked at on Linux alone")
}
