"""How a batch is laid out for a device graph: shapes, arrays, costs, memory. Pure: nothing here touches a device."""
