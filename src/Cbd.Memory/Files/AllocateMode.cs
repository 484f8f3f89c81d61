namespace Cbd.Memory;

/// <summary>What fallocate(2) does with a range (linux/falloc.h).</summary>
public enum AllocateMode
{
    /// <summary>Reserves space; the file grows if it ends earlier.</summary>
    Reserve = 0,

    /// <summary>FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: the range reads as zeroes, its space is freed.</summary>
    PunchHole = 0x03,

    /// <summary>FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE: the range reads as zeroes, its space stays.</summary>
    ZeroRange = 0x11,
}
