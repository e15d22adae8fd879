"""The report: one HTML file about a run, or several, that needs nothing but a browser.

history.py   events.jsonl as curves                    html.py      elements whose text is escaped
interval.py  Wilson's confidence interval               axes.py      ticks, and numbers as people read them
content.py   everything a report says, as data          chart.py     curves as SVG
gather.py    ... collected from a run's output folder   heatmap.py   the confusion matrix as SVG
summary.py   ... in sentences, and as plain JSON        bars.py      reliability, pictures of each class
network.py   Grad-CAM, first convolution (torch)        sections.py, model.py, origin.py, page.py   the page
picture.py   thumbnails as data: URLs                   page.css, page.js
"""
