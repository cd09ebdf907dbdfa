//go:build !linux

package estest

import "errors"

type process struct{ done chan struct{} }

func startProcess(string, []string, []string, string) (*process, error) {
	return nil, errors.New("a real Elasticsearch is run on Linux only")
}

func (p *process) stop() {}

func (p *process) kill() {}

func (p *process) tail() string { return "" }
