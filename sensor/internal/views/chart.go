package views

import (
	"fmt"
	"html"
	"strings"
)

// Bar is one bar of a chart.
type Bar struct {
	Label  string
	N      uint64
	Severe bool // drawn in the accent colour
}

// Bars is a chart of bars, each with its label and number as text.
func Bars(title string, bars []Bar) HTML {
	var most uint64 = 1
	for _, b := range bars {
		most = max(most, b.N)
	}
	var b strings.Builder
	b.WriteString(`<figure><figcaption>` + html.EscapeString(title) + `</figcaption><table class="bars-table hidden-head"><caption class="hidden">` + html.EscapeString(title) + `</caption>`)
	b.WriteString(`<thead class="hidden"><tr><th scope="col">what</th><th scope="col">bar</th><th scope="col">number</th></tr></thead><tbody>`)
	for _, bar := range bars {
		class := "bar"
		if bar.Severe {
			class = "severe"
		}
		width := float64(bar.N) / float64(most) * 100
		if bar.N > 0 {
			width = max(width, .8)
		}
		label := strings.ReplaceAll(string(Text(bar.Label)), "_", "_<wbr>") // names of cipher suites break between their words
		fmt.Fprintf(&b, `<tr><th scope="row">%s</th><td class="drawn"><svg class="chart" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">`+
			`<rect class="track" width="100" height="10"/><rect class="%s" width="%.4g" height="10"/></svg></td><td class="number">%s</td></tr>`,
			label, class, width, Count(bar.N))
	}
	b.WriteString("</tbody></table></figure>\n")
	return HTML(b.String())
}

// Series is one row of a time line.
type Series struct {
	Name   string
	Counts []uint64 // one for each interval, oldest first
	Severe bool     // drawn in the accent colour
}

// TimeLine is a chart of what happened in equal intervals from one time to another, in
// nanoseconds since the Unix epoch. All series have as many counts.
func TimeLine(title string, from, to int64, series []Series) HTML {
	var b strings.Builder
	b.WriteString(`<figure class="timeline"><figcaption>` + html.EscapeString(title) + `</figcaption>`)
	for _, s := range series {
		var most, sum uint64
		at := 0
		for i, n := range s.Counts {
			sum += n
			if n > most {
				most, at = n, i
			}
		}
		said := fmt.Sprintf("%s: %s in all", s.Name, Count(sum))
		if sum > 0 && len(s.Counts) > 1 {
			step := (to - from) / int64(len(s.Counts))
			said += fmt.Sprintf(", the most (%s) from %s on", Count(most), Time(from+step*int64(at)))
		}
		class := "bar"
		if s.Severe {
			class = "severe"
		}
		fmt.Fprintf(&b, `<div class="series"><span>%s <span class="soft">%s</span></span><svg class="chart" role="img" aria-label="%s" viewBox="0 0 %d 40" preserveAspectRatio="none">`+
			`<title>%s</title><desc>%s</desc>`, html.EscapeString(s.Name), Count(sum), html.EscapeString(said), max(1, len(s.Counts))*10, html.EscapeString(s.Name), html.EscapeString(said))
		for i, n := range s.Counts {
			if n == 0 {
				continue
			}
			height := max(float64(n)/float64(most)*38, 3)
			fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%.4g" width="8" height="%.4g"/>`, class, i*10+1, 39-height, height)
		}
		fmt.Fprintf(&b, `<path class="axis" d="M0 39.5H%d" vector-effect="non-scaling-stroke"/></svg></div>`, max(1, len(s.Counts))*10)
	}
	fmt.Fprintf(&b, `<div class="ends"><span>%s</span><span>%s UTC</span></div></figure>`+"\n", Time(from), Time(to))
	return HTML(b.String())
}
