//go:build !linux

package doctor

import "errors"

// ReadMachine reads what is known of the machine: on Linux alone.
func ReadMachine() (*Machine, error) {
	return nil, errors.New("the machine can be looked at on Linux alone")
}

// ReadFolder reads where a folder is, or will be made. Elsewhere than on Linux nothing is known of its file system.
func ReadFolder(path string, size int64) (*Folder, error) {
	return &Folder{Path: path, On: path, Size: size, Free: size}, nil
}
