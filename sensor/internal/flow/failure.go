package flow

import (
	"fmt"
	"runtime/debug"
)

// Failure is a defect of the program that input has found: a panic that was
// caught, so that it costs one flow, and kept, so that it can be reported.
type Failure struct {
	Text  string // of the panic
	Stack []byte // of the goroutine, as [runtime/debug.Stack] has it
	Where string // what it was working on, such as a five-tuple
}

// NewFailure makes a Failure of what recover has returned. It must be called by
// the deferred function that recovers, while the stack is still that of the
// panic.
func NewFailure(cause any, where string) *Failure {
	return &Failure{Text: fmt.Sprint(cause), Stack: debug.Stack(), Where: where}
}

// String returns all of f in lines, the stack last.
func (f *Failure) String() string { return fmt.Sprintf("panic: %s (%s)\n%s", f.Text, f.Where, f.Stack) }
