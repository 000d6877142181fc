"""`fedward doctor`: what must hold on this machine and on the way to the broker, told line by line.

Facts come from `probe.py`, `session.py` and `measure.py`; the judgement of them is pure, in `way.py`, `broker.py` and
`machine.py`. What only one of the sides needs is in that side's own `doctor.py`.
"""
