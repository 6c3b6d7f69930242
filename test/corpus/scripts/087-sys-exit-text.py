# sys.exit with a text: on stderr, code 1
import sys

cronium.setCondition(True)
sys.exit('no rows today')
