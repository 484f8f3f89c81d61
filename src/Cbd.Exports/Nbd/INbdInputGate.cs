namespace Cbd.Exports.Nbd;

/// <summary>Says whether what a pump has just received may be started.</summary>
internal interface INbdInputGate
{
    /// <summary>Asked by the pump's thread behind each receipt. While it is false nothing that is received is started.</summary>
    bool IsOpen { get; }
}
