package capture

import (
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// filtered is a source of the frames that a filter lets pass.
type filtered struct {
	Source
	expression string
	compiled   map[linktype.Type]*Filter
}

// Filtered returns the frames of s that match an expression, see
// [CompileFilter]. Frames that do not are counted as read and go no further.
func Filtered(s Source, expression string) (Source, error) {
	f := &filtered{s, expression, map[linktype.Type]*Filter{}}
	if _, err := f.filter(linktype.Ethernet); err != nil {
		return nil, err
	}
	return f, nil
}

// filter returns the expression as compiled for a link type.
func (f *filtered) filter(link linktype.Type) (*Filter, error) {
	if c, ok := f.compiled[link]; ok {
		return c, nil
	}
	c, err := CompileFilter(f.expression, link)
	if err == nil {
		f.compiled[link] = c
	}
	return c, err
}

// Next returns the next batch of which something passes.
func (f *filtered) Next() (*Batch, error) {
	for {
		b, err := f.Source.Next()
		if err != nil {
			return nil, err
		}
		if len(b.Frames) == 0 { // time has passed
			return b, nil
		}
		b.Frames = slices.DeleteFunc(b.Frames, func(frame Frame) bool {
			var c *Filter
			if c, err = f.filter(frame.LinkType); err != nil {
				return true
			}
			return !c.Match(frame.Data)
		})
		if err == nil && len(b.Frames) > 0 {
			return b, nil
		}
		b.Release()
		if err != nil {
			return nil, err
		}
	}
}
