using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>A disk is locked, mounted or held by somebody else, who may let go of it.</summary>
public sealed class DiskInUseException(string message) : CbdException(CbdErrorKind.Busy, message);
