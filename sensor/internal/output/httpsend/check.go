package httpsend

import (
	"context"
	"fmt"
	"net/http"
)

// Check asks the server what can be done at the address (OPTIONS, RFC 9110, section
// 9.3.7), which changes nothing there. Many servers refuse the question: that they
// answer is enough, unless they refuse the credentials, lead elsewhere or are out of
// order.
func (c *Client) Check(ctx context.Context) error {
	a, trouble := c.Do(ctx, Request{Method: http.MethodOptions})
	switch {
	case trouble != nil:
		return trouble.Err
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusProxyAuthRequired,
		a.Status >= 300 && a.Status < 400,
		a.Status >= 500 && a.Status != http.StatusNotImplemented:
		return a.error(a.Reason())
	case a.plain && a.Status == http.StatusBadRequest:
		return fmt.Errorf("%w: if the server speaks TLS there, use https:// in its address", a.error(a.Reason()))
	}
	return nil
}
