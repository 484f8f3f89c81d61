namespace Cbd.Host.Devices;

/// <summary>How far a device has come; <see cref="Sessions.LifeState"/> is what of it users see.</summary>
internal enum DeviceStage
{
    /// <summary>It holds nothing.</summary>
    New = 0,

    /// <summary>The entry and the channels are claimed; its name is not published yet.</summary>
    Claimed,

    /// <summary>The channels are offered.</summary>
    Attaching,

    /// <summary>Every queue is attached. The driver lets the export serve.</summary>
    Attached,

    /// <summary>The export's threads drive the queues.</summary>
    Serving,

    /// <summary>A stop was accepted. The driver ends the export.</summary>
    EndingExport,

    /// <summary>The channels drain.</summary>
    Closing,

    /// <summary>Everything is given back, or left to who clears this host.</summary>
    Over,
}
