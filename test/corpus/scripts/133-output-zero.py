# 0 as output
cronium.output(0)
cronium.setCondition(0.0)
