//go:build !linux

package kafkatest

import "errors"

type process struct{ done chan struct{} }

func startProcess(string, []string, string) (*process, error) {
	return nil, errors.New("a real broker is run on Linux only")
}

func (p *process) kill() {}

func (p *process) tail() string { return "" }
