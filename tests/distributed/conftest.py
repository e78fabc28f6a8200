from tests.distributed.ranks import side_by_side as side_by_side
from tests.distributed.ranks import together as together
