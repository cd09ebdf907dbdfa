package traffic

import (
	"errors"
	"io"
)

type generator struct{}

var named = map[string]func() Spec{}

func newGenerator(w io.Writer, s Spec) (*generator, error) {
	return nil, errors.New("not yet")
}

func (g *generator) run() (*Truth, error) { return nil, nil }
