"""The words of the standard's codes, as FreeIPMI spells them. Pure tables.

ipmi_exporter puts these words into labels, so they must be the same here.
"""

from __future__ import annotations

# IPMI 2.0, table 42-3.
_SENSOR_TYPES = (
    "Reserved",
    "Temperature",
    "Voltage",
    "Current",
    "Fan",
    "Physical Security",
    "Platform Security Violation Attempt",
    "Processor",
    "Power Supply",
    "Power Unit",
    "Cooling Device",
    "Other Units Based Sensor",
    "Memory",
    "Drive Slot",
    "POST Memory Resize",
    "System Firmware Progress",
    "Event Logging Disabled",
    "Watchdog 1",
    "System Event",
    "Critical Interrupt",
    "Button/Switch",
    "Module/Board",
    "Microcontroller/Coprocessor",
    "Add In Card",
    "Chassis",
    "Chip Set",
    "Other Fru",
    "Cable/Interconnect",
    "Terminator",
    "System Boot Initiated",
    "Boot Error",
    "OS Boot",
    "OS Critical Stop",
    "Slot/Connector",
    "System ACPI Power State",
    "Watchdog 2",
    "Platform Alert",
    "Entity Presence",
    "Monitor ASIC/IC",
    "LAN",
    "Management Subsystem Health",
    "Battery",
    "Session Audit",
    "Version Change",
    "FRU State",
)
_FIRST_OEM_SENSOR_TYPE = 0xC0

# IANA's private enterprise numbers of makers of servers and of their BMCs; the registry has
# tens of thousands more, which go by their number.
_MANUFACTURERS = {
    2: "IBM",
    11: "Hewlett-Packard",
    42: "Sun Microsystems",
    116: "Hitachi, Ltd.",
    119: "NEC Corporation",
    343: "Intel Corporation",
    674: "Dell Inc.",
    2011: "HUAWEI Technology Co.,Ltd",
    2623: "ASUSTek Computer Inc.",
    3902: "Zhongxing Telecom Co.,ltd. (abbr. ZTE)",
    4769: "IBM Corporation",
    5703: "NVIDIA Corporation",
    5771: "Cisco Systems, Inc.",
    6569: "INVENTEC CORPORATION",
    6653: "Tyan Computer Corporation",
    7244: "Quanta Computer Inc.",
    10297: "Advantech Co., Ltd.",
    10368: "Fujitsu Technology Solutions GmbH",
    10876: "Super Micro Computer Inc.",
    15370: "GIGA-BYTE TECHNOLOGY CO., LTD",
    19046: "Lenovo Enterprise Business Group",
    20301: "IBM eServer X",
    20569: "Inventec Enterprise System Corp.",
    20974: "American Megatrends, Inc",
    25506: "H3C",
    27500: "Dawning Ltd.",
    33049: "Mellanox Technologies LTD",
    37945: "Inspur(BeiJing) Electronic Information Industry Co.,Ltd",
    40092: "Wiwynn Corporation",
    42817: "IBM Platform Firmware Division",
    47196: "Hewlett Packard Enterprise",
}


def name_sensor_type(code: int) -> str:
    """Return the sensor type's name."""
    if code < len(_SENSOR_TYPES):
        return _SENSOR_TYPES[code]
    return "OEM Reserved" if code >= _FIRST_OEM_SENSOR_TYPE else "Unrecognized"


def name_manufacturer(number: int) -> str:
    """Return `name (number)`, or the number alone for a maker that is not in the table."""
    name = _MANUFACTURERS.get(number)
    return f"{name} ({number})" if name else str(number)
